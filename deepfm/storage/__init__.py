"""One narrow object store: a local folder or a bucket behind the same eight calls."""

from deepfm.storage.cache import LocalCache
from deepfm.storage.protocol import ObjectInfo, ObjectStore
from deepfm.storage.urls import absent_folder, open_store

__all__ = ["LocalCache", "ObjectInfo", "ObjectStore", "absent_folder", "open_store"]
