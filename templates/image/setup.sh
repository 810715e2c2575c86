#!/bin/sh
# Runs inside the new system: what turns a Debian into a proxy VM's base image.
set -eu

# The initramfs carries what a root disk needs on Hyper-V and on QEMU, and no more: it is unpacked at
# every boot.
cat > /etc/initramfs-tools/conf.d/vmproxy <<'END'
MODULES=list
COMPRESS=zstd
COMPRESSLEVEL=3
END
cat >> /etc/initramfs-tools/modules <<'END'
hv_vmbus
hv_storvsc
hv_netvsc
hv_utils
hyperv_keyboard
virtio_pci
virtio_blk
virtio_scsi
virtio_net
sd_mod
sr_mod
ext4
END
update-initramfs -u

# Nothing that wakes up by itself in a VM that is made anew rather than maintained.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
    e2scrub_reap.service man-db.timer fstrim.timer systemd-binfmt.service; do
    systemctl mask "$unit" >/dev/null 2>&1 || true
done
systemctl enable systemd-networkd.service ssh.service nftables.service >/dev/null 2>&1
systemctl disable nftables.service >/dev/null 2>&1

# cloud-init asks only what can be there: a NoCloud seed. On Hyper-V it is in a DVD drive, whose driver has to
# be loaded before cloud-init first looks (hence sr_mod above); a list of one is not looked for beforehand.
cat > /etc/cloud/cloud.cfg.d/90_vmproxy.cfg <<'END'
datasource_list: [NoCloud, None]
END

# Loaded at boot, so that nothing waits for them later.
printf 'nf_conntrack\nnf_tables\n' > /etc/modules-load.d/vmproxy.conf

printf 'LABEL=root / ext4 defaults,noatime,errors=remount-ro 0 1\n' > /etc/fstab
rm -f /var/lib/dbus/machine-id /etc/ssh/ssh_host_* /etc/hostname /etc/resolv.conf
ln -s ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
passwd -l root >/dev/null

# What differs from build to build, and what is fetched again when it is needed.
apt-get clean
rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /var/lib/systemd/catalog/database /tmp/* /var/tmp/*
rm -f /var/lib/dpkg/*-old /etc/*- /var/lib/initramfs-tools/* /var/lib/systemd/random-seed

# Byte code that names no time: cloud-init starts in a fraction, and each build writes the same bytes.
find / -xdev -name __pycache__ -type d -prune -exec rm -rf {} +
PYTHONHASHSEED=0 python3 -m compileall -q --invalidation-mode unchecked-hash /usr/lib/python3* >/dev/null || true

# Tells systemd that /etc and /var were made for this /usr: no update services at the first boot.
touch /etc/.updated /var/.updated
