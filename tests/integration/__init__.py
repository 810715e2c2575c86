"""Tests on the real lab: namespaces, a control plane, QEMU. They need root and leave nothing behind."""
