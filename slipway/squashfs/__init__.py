"""Squashfs 4.0 images: layers compiled once, linked into images, read, checked and compared.

Knows nothing of Docker. The way through: a layer source (`dirsource`, `tarsource`) is compiled
into a cache entry (`compile`, `cache`), entries are merged (`merge`) and linked (`link`).
`reader` reads any squashfs back; `diff` and `verify` stand on it.
"""
