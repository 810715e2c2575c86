"""What makes a Windows host's containers use the proxy VM: configuration of others' programs, as data."""
