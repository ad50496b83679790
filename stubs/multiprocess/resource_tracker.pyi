class ResourceTracker:
    _fd: int | None

_resource_tracker: ResourceTracker

def ensure_running() -> None: ...
