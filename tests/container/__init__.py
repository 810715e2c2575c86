"""A second program behind the command line of QEMU: it boots the disk's system in a container.

`qemu-system-x86_64` is where both kinds of host meet their hypervisor: the embedded host's `QemuVm` and the
emulated Windows host's Start-VM write the same command line and speak to the same monitor. The program here
takes that command line and boots the disk's root file system with systemd-nspawn, on its own kernel: in
seconds, where QEMU's software emulation takes a minute. What is on the disk is as real as in QEMU: systemd,
cloud-init with the attached seed, networkd, sshd, kube-proxy, nft. Firmware, boot loader, initramfs, devices,
the kernel and its modules are not: what needs them is tested with QEMU (docs/tests.md).

    commandline.py  what QEMU is told, as data
    machine.py      the program: its monitor, its console, its power
    boot.py         the container, from inside the namespaces that end with the program
    disks.py        the disk and the seed
    port.py         the adapter's end at the switch
    cgroup.py       ends what is left, also after a kill -9
"""
