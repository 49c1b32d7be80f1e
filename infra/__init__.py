"""The Pulumi program: a federation on Kubernetes. README.md says what it makes and takes."""
