"""The built-in ``fetch``: web pages as text, from the hosts of GATEHOUSE_FETCH_ALLOW and from nowhere else.

    fetch_tool ── Fetcher ── AllowList       may this url be fetched, and may its name lead to this address
                     └────── page_text       HTML as text with its links

Loaded only where the list is not empty.
"""

from worker.tools.fetch.tool import fetch_tool

__all__ = ["fetch_tool"]
