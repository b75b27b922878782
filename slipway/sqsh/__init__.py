"""Image -> enroot-ready squashfs file."""
