#!/bin/sh
# Runs inside the new system: what turns a Debian into a proxy VM's base image.
set -eu

# The boot loader is on the boot partition by now, and nothing here changes it. Debian protects its packages.
apt-get purge -q -y --autoremove --allow-remove-essential $(dpkg-query -Wf '${Package}\n' 'grub*' 'shim*') >/dev/null

# The initramfs carries what a root disk needs on Hyper-V and on QEMU, and no more: it is unpacked at
# every boot. Its init is ours: Debian's starts udev, looks for a disk to resume from, and checks file systems.
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
cat > /etc/initramfs-tools/vmproxy-init <<'END'
#!/bin/sh
# Load the disk's driver, mount the root, start systemd on it.
export PATH=/sbin:/usr/sbin:/bin:/usr/bin
mkdir -p /dev /proc /root /sys
mount -t sysfs -o nodev,noexec,nosuid sysfs /sys
mount -t proc -o nodev,noexec,nosuid proc /proc
mount -t devtmpfs -o nosuid,mode=0755 udev /dev

init=/sbin/init flags= mode=ro root=
for word in $(cat /proc/cmdline); do
    case $word in
        root=UUID=*) root=${word#root=UUID=} ;;
        rootflags=*) flags=,${word#rootflags=} ;;
        init=*) init=${word#init=} ;;
        ro | rw) mode=$word ;;
    esac
done

found() {
    disk=$(blkid -l -o device -t "UUID=$root") && [ -b "$disk" ]
}

vendor=$(cat /sys/class/dmi/id/sys_vendor)
case $vendor in
    Microsoft*) modprobe -qab hv_vmbus hv_storvsc hv_netvsc hv_utils hyperv_keyboard sd_mod sr_mod ;;
    *) modprobe -qab virtio_blk virtio_net ;;
esac
tried=0
until found; do
    # Some other virtual hardware, or a disk that needs its time.
    if [ $tried = 0 ]; then modprobe -qab $(cat /conf/modules); fi
    tried=$((tried + 1))
    if [ $tried = 300 ]; then
        echo "the root disk $root was not found" > /dev/console
        exit 1
    fi
    sleep 0.2
done
# cloud-init looks for the seed in a DVD drive as soon as it starts; disks and drives are found side by side.
tried=0
case $vendor in
    Microsoft*)
        until [ -b /dev/sr0 ] || [ $tried = 15 ]; do
            tried=$((tried + 1))
            sleep 0.2
        done
        ;;
esac
mount -t ext4 -o "$mode$flags" "$disk" /root
mount -o move /sys /root/sys
mount -o move /proc /root/proc
mount -o move /dev /root/dev
exec run-init /root "$init" "$@" < /root/dev/console > /root/dev/console 2>&1
END
cat > /etc/initramfs-tools/hooks/vmproxy <<'END'
#!/bin/sh
# The last hook: our init, and what it uses.
if [ "$1" = prereqs ]; then exit 0; fi
. /usr/share/initramfs-tools/hook-functions
rm -rf "$DESTDIR"/usr/lib/udev "$DESTDIR"/usr/lib/systemd "$DESTDIR"/etc/udev "$DESTDIR"/scripts/* \
    "$DESTDIR"/usr/sbin/* "$DESTDIR"/usr/lib/*-linux-gnu "$DESTDIR"/usr/lib64/*
for program in blkid modprobe; do copy_exec /sbin/$program /sbin; done
install -m 0755 /etc/initramfs-tools/vmproxy-init "$DESTDIR/init"
END
chmod 0755 /etc/initramfs-tools/hooks/vmproxy
update-initramfs -u

# Hardware that a VM does not have, and a processor's special instructions: loaded for their mere presence, at every
# boot. What is asked for by name still loads.
for module in ahci kvm_amd kvm_intel psmouse serio_raw \
    aesni_intel crc32_pclmul crct10dif_pclmul ghash_clmulni_intel sha1_ssse3 sha256_ssse3 sha512_ssse3; do
    echo "blacklist $module"
done > /etc/modprobe.d/vmproxy.conf

# Nothing that wakes up by itself in a VM that is made anew rather than maintained, and no unit without work here:
# no TPM, no swap, no journal on disk, no credentials from a hypervisor, no kernel debugging.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
    e2scrub_reap.service man-db.timer fstrim.timer systemd-binfmt.service proc-sys-fs-binfmt_misc.automount \
    systemd-pcrextend.socket systemd-pcrlock.socket systemd-pcrmachine.service systemd-pcrphase.service \
    systemd-pcrphase-sysinit.service systemd-tpm2-setup.service systemd-tpm2-setup-early.service \
    systemd-hibernate-clear.service systemd-hwdb-update.service systemd-journal-flush.service \
    systemd-udev-load-credentials.service systemd-network-generator.service \
    systemd-networkd-persistent-storage.service systemd-creds.socket systemd-sysext.socket \
    dev-hugepages.mount sys-fs-fuse-connections.mount sys-kernel-config.mount sys-kernel-debug.mount \
    sys-kernel-tracing.mount modprobe@configfs.service modprobe@drm.service modprobe@efi_pstore.service \
    modprobe@fuse.service; do
    ln -sf /dev/null "/etc/systemd/system/$unit"
done
mkdir -p /etc/systemd/system-generators
for generator in debug gpt-auto hibernate-resume rc-local run ssh system-update tpm2; do
    ln -sf /dev/null "/etc/systemd/system-generators/systemd-$generator-generator"
done
systemctl enable systemd-networkd.service ssh.service nftables.service >/dev/null 2>&1
systemctl disable nftables.service >/dev/null 2>&1

# The SSH server first; what nobody waits for, after it.
drop_in() {
    mkdir -p "/etc/systemd/system/$1.d"
    cat > "/etc/systemd/system/$1.d/vmproxy.conf"
}
# Its keys were just written at the first boot, and cloud-init writes them once: a machine that answers has them on
# its disk, so that it answers after a power failure too.
printf '[Service]\nExecStartPre=\nExecStartPre=-/bin/sync\n' | drop_in ssh.service
for unit in dbus.service systemd-logind.service cloud-config.service getty@.service serial-getty@.service; do
    printf '[Unit]\nAfter=ssh.service\n' | drop_in "$unit"
done
# Both belong to early boot by their own units, whose Before= no drop-in takes back. The resolver runs only where the
# seed names a DNS server.
own() {
    systemctl disable "$1" >/dev/null 2>&1
    sed -e '/^Before=/d' -e 's/^WantedBy=.*/WantedBy=multi-user.target/' "/usr/lib/systemd/system/$1" > "/etc/systemd/system/$1"
    systemctl enable "$1" >/dev/null 2>&1
}
own systemd-timesyncd.service
sed -i '/^DefaultDependencies=/d' /etc/systemd/system/systemd-timesyncd.service
printf '[Unit]\nAfter=ssh.service\n' | drop_in systemd-timesyncd.service
own systemd-resolved.service
drop_in systemd-resolved.service <<'END'
[Unit]
After=cloud-init-local.service
Before=shutdown.target

[Service]
ExecCondition=grep -qrs ^DNS= /etc/systemd/network /run/systemd/network /etc/systemd/resolved.conf.d
END

# cloud-init asks only what can be there: a NoCloud seed. On Hyper-V it is in a DVD drive, whose driver has to
# be loaded before cloud-init first looks (hence sr_mod above); a list of one is not looked for beforehand.
# networkd is configured as it is: by way of netplan systemd reads all its units again, three times.
cat > /etc/cloud/cloud.cfg.d/90_vmproxy.cfg <<'END'
datasource_list: [NoCloud, None]
# The root fills its disk, and a VM's disk is a copy of it: user data of one's own turns these on for a larger one.
growpart: {mode: "off"}
resize_rootfs: false
system_info:
  network:
    renderers: [networkd]
END
# Debian 12's cloud-init leaves out the seed's accept-ra: false here.
mkdir -p /etc/systemd/network/10-cloud-init-eth0.network.d
printf '[Network]\nIPv6AcceptRA=no\n' > /etc/systemd/network/10-cloud-init-eth0.network.d/vmproxy.conf
# The link-local address counts as configured at once: a second of waiting for a duplicate of a MAC that is ours.
printf 'net.ipv6.conf.all.accept_dad = 0\nnet.ipv6.conf.default.accept_dad = 0\n-net.ipv6.conf.eth0.accept_dad = 0\n' \
    > /etc/sysctl.d/50-vmproxy-boot.conf

# kube-proxy's sysctls need the one at boot; the other is loaded beside what follows the SSH server.
printf 'nf_conntrack\n' > /etc/modules-load.d/vmproxy.conf
cat > /etc/systemd/system/vmproxy-modules.service <<'END'
[Unit]
Description=Load nf_tables before kube-proxy asks for it
After=ssh.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=-modprobe nf_tables

[Install]
WantedBy=multi-user.target
END
systemctl enable vmproxy-modules.service >/dev/null 2>&1

# The kernel's command line says how the root is mounted; a broken journal is replayed by mounting it.
printf '# The root is mounted by the initramfs: see /proc/cmdline.\n' > /etc/fstab
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
