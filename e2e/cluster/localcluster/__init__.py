"""A real Kubernetes on this machine: see ../README.md."""
