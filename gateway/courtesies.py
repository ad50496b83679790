"""Calls that are a courtesy: they go now or not at all, where the governor leaves room for the final answer."""

from __future__ import annotations

from gateway.governor import Governor
from gateway.platform_calls import PlatformCalls
from gateway.platforms.port import Adapter, ApiRequest, ApiResponse, TryLater
from shared.messages import Reply, ReplyStatus


class Courtesies:
    """Sends life signs and the beginnings of answers."""

    def __init__(self, governor: Governor, calls: PlatformCalls) -> None:
        self._governor = governor
        self._calls = calls

    def allowed(self, platform: Adapter, address: bytes, request: ApiRequest) -> bool:
        """Tell whether one may be sent to a chat now, and count it if so."""
        chat, method = platform.chat(address), platform.method_of(request)
        return self._governor.allow_courtesy(platform.name, platform.capabilities.app_rates, chat, method)

    async def send(self, platform: Adapter, address: bytes, request: ApiRequest) -> ApiResponse | None:
        """Send one; None where nothing came back. What a limit asks for is kept by all that it is about."""
        answer = await self._calls.ask(platform, request)
        if answer is not None and answer.status == 429:
            probe = Reply("", "", 0, platform.name, "", address, ReplyStatus.REPLIED)
            result = platform.result(probe, answer)
            if isinstance(result, TryLater) and result.after_s:
                chat = None if result.whole_app else platform.chat(address)
                method = "" if result.whole_app else platform.method_of(request)
                self._governor.hold(platform.name, chat, result.after_s, method)
        return answer
