#!/usr/bin/env bash
# Owns the lab's operating systems: two small, real Debian (on Ubuntu hosts: Ubuntu) disk images, debian-a and
# debian-b, from one package download. A rack that installs them proves the whole way: they boot with BIOS and UEFI
# from virtio, SATA, NVMe and SCSI disks, say on the serial console who they are, grow to the disk's size, take their
# name from a CIDATA file system and call home.
#
#     tests/lab/image.sh [DIRECTORY] [earlier]      default target/lab; prints the paths of the two images
#
# With `earlier` they are an earlier build of the same: from the release alone, without its updates, and with file systems
# of other UUIDs.
#
# Nothing is mounted and no loop device is used: mmdebstrap makes a directory, mke2fs -d turns it into ext4, mtools
# fill the EFI system partition, and GRUB's BIOS part is laid into the disk by hand, because grub-install wants a
# device with partitions and not every test kernel can make one of a file. The result is kept under a key that is the
# hash of this script, so a second call costs nothing, and one image.key tells which pair is there.
set -eu
umask 022
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin" DEBIAN_FRONTEND=noninteractive

dir="${1:-target/lab}" build="${2:-}"
mkdir -p "$dir"
dir="$(cd "$dir" && pwd)"
. /etc/os-release

# ---------------------------------------------------------------------------------------------- what is wanted

sector=512
bios_lba=2048 bios_sectors=2048           # 1 MiB for GRUB's core.img
esp_lba=4096 esp_sectors=32768            # 16 MiB: FAT16, holds one EFI program
root_lba=36864 root_sectors=2007040       # 980 MiB, the last partition, so that it can grow
disk_sectors=2045952                      # 999 MiB: ends one MiB after the root, for the backup GPT

# One base for all four disks' drivers; UUIDs are fixed so that two builds of one script differ as little as they can.
root_uuid_a=5b0a0000-0000-4000-8000-00000000000a
root_uuid_b=5b0b0000-0000-4000-8000-00000000000b

if [ "$build" = earlier ]; then
    root_uuid_a=5b0c0000-0000-4000-8000-00000000000c
    root_uuid_b=5b0d0000-0000-4000-8000-00000000000d
fi

kernel_arguments='ro console=ttyS0,115200n8 mitigations=off audit=0'

case "${ID:-}" in
    ubuntu) kernel_package=linux-image-generic ;;
    *) kernel_package=linux-image-amd64 ;;
esac
packages=(
    "$kernel_package" initramfs-tools zstd systemd-sysv udev dbus kmod
    login passwd netbase iproute2 iputils-ping procps
    cloud-init cloud-guest-utils fdisk e2fsprogs openssh-server ca-certificates
)

# Documentation, translations, and drivers for things that neither a virtual machine nor a server's way to its disk
# has. What is left: all of net/ethernet, block, scsi, ata, nvme, usb host, input, virtio, file systems.
excluded=(
    '/usr/share/doc/*' '/usr/share/man/*' '/usr/share/info/*' '/usr/share/locale/*' '/usr/share/i18n/*'
    '/usr/share/lintian/*' '/usr/share/bash-completion/*' '/usr/share/zoneinfo/*/*' '/usr/share/perl/*/unicore/*'
    '/usr/lib/x86_64-linux-gnu/gconv/*'
)
for modules in arch/x86/kvm sound net/bluetooth net/wireless net/mac80211 net/batman-adv net/can drivers/gpu drivers/media \
    drivers/net/wireless drivers/net/can drivers/net/usb drivers/staging drivers/iio drivers/infiniband drivers/isdn \
    drivers/hwmon drivers/bluetooth drivers/mtd drivers/video drivers/watchdog drivers/platform drivers/power \
    drivers/input/touchscreen drivers/input/joystick drivers/input/tablet drivers/input/mouse \
    drivers/input/misc drivers/crypto drivers/comedi drivers/edac drivers/leds \
    drivers/mfd drivers/firewire drivers/thunderbolt drivers/target drivers/md drivers/mmc drivers/usb/serial \
    drivers/usb/gadget drivers/usb/misc drivers/android drivers/atm drivers/parport drivers/pcmcia drivers/regulator \
    drivers/rtc drivers/spi drivers/i2c drivers/gpio drivers/w1 drivers/vfio drivers/vhost drivers/uio \
    fs/xfs fs/btrfs fs/ocfs2 fs/gfs2 fs/ceph fs/nfs fs/nfsd fs/cifs fs/smb fs/jfs fs/reiserfs fs/f2fs fs/ubifs \
    fs/afs fs/orangefs fs/nilfs2 fs/ntfs fs/ntfs3 fs/udf fs/dlm fs/jffs2 fs/hfs fs/hfsplus fs/coda fs/9p fs/bcachefs; do
    excluded+=("/lib/modules/*/kernel/$modules/*" "/usr/lib/modules/*/kernel/$modules/*")
done

# ---------------------------------------------------------------------------------------------- cached already?

key="$({ cat -- "$0"; echo "${ID:-} ${VERSION_CODENAME:-} $build"; } | sha256sum | cut -c1-16)"
exec 9>"$dir/.image.lock"
flock 9
if [ "$(cat "$dir/image.key" 2>/dev/null)" = "$key" ] && [ -s "$dir/debian-a.img" ] && [ -s "$dir/debian-b.img" ]; then
    printf '%s\n' "$dir/debian-a.img" "$dir/debian-b.img"
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "image.sh: building the lab's images needs root (a root file system has foreign owners); hint: sudo $0" >&2
    exit 2
fi
for program in mmdebstrap mke2fs debugfs mcopy mkfs.vfat sgdisk grub-mkimage; do
    command -v "$program" >/dev/null || {
        echo "image.sh: $program is missing; hint: run tests/setup" >&2
        exit 2
    }
done

rm -f "$dir/image.key"
work="$(mktemp -d "$dir/.image.XXXXXX")"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
say() { echo "image.sh: $*" >&2; }
started=$SECONDS

# ---------------------------------------------------------------------------------------------- the root file system

# Files that have to be there before the packages are configured: the initramfs is built once, with our list.
before="$work/before"
mkdir -p "$before/etc/initramfs-tools/hooks" "$before/etc/initramfs-tools/conf.d" "$before/etc/kernel" \
    "$before/etc/systemd/system"
cat >"$before/etc/initramfs-tools/conf.d/lab.conf" <<'END'
# Only what reaches a disk; udev loads of it what the machine has. MODULES=most is three times as large to read and unpack.
MODULES=list
COMPRESS=zstd
RESUME=none
END
cat >"$before/etc/initramfs-tools/hooks/lab" <<'END'
#!/bin/sh
[ "$1" = prereqs ] && exit 0
. /usr/share/initramfs-tools/hook-functions
manual_add_modules virtio_pci virtio_blk virtio_scsi sd_mod ahci ata_piix ata_generic nvme mptsas mptspi megaraid_sas \
    mpt3sas usb_storage uas xhci_pci ehci_pci ext4 crc32c_intel crc32c_generic
END
chmod +x "$before/etc/initramfs-tools/hooks/lab"
# Nothing that a fresh machine's first minutes do not need: emulated, every program start costs a tenth of a second.
# cloud-init's four stages become two, because starting Python is most of each (10 s of an emulated second core's time):
# CIDATA is on a disk, so the stage before the network finds nothing that the next one does not, and what the config
# stage would run, runs in the final one.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
    fstrim.timer man-db.timer logrotate.timer systemd-pstore.service networking.service ifupdown-wait-online.service \
    systemd-networkd-wait-online.service cloud-init-hotplugd.socket motd-news.timer getty@tty1.service \
    cloud-init-local.service cloud-config.service systemd-binfmt.service proc-sys-fs-binfmt_misc.automount \
    systemd-modules-load.service kmod-static-nodes.service modprobe@configfs.service modprobe@drm.service \
    modprobe@dm_mod.service modprobe@fuse.service modprobe@loop.service modprobe@efi_pstore.service \
    dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount \
    sys-fs-fuse-connections.mount systemd-update-utmp.service systemd-update-utmp-runlevel.service \
    systemd-tmpfiles-clean.timer; do
    ln -s /dev/null "$before/etc/systemd/system/$unit"
done

# The host's own package sources, whatever they are: this script names no mirror.
sources=()
for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list; do
    if [ -e "$file" ] && grep --quiet --extended-regexp "^[^#]*\b${VERSION_CODENAME}\b" "$file"; then
        sources+=("$file")
    fi
done
[ ${#sources[@]} -gt 0 ] || {
    echo "image.sh: no apt source on this host offers ${VERSION_CODENAME}; hint: check /etc/apt/sources.list.d" >&2
    exit 1
}

if [ "$build" = earlier ]; then
    # Of deb822 paragraphs and of lines, those that offer the release itself, for nothing but that.
    file="$work/release.sources" list="$work/release.list"
    cat "${sources[@]}" | grep -v '^#' | awk -v name="$VERSION_CODENAME" '
        BEGIN { RS = ""; FS = "\n" }
        { out = ""; fits = 0
          for (at = 1; at <= NF; at++) {
              line = $at
              if (line ~ /^Suites:/) { if ((" " line " ") ~ (" " name " ")) fits = 1; line = "Suites: " name }
              out = out line "\n"
          }
          if (fits) print out }' >"$file"
    cat "${sources[@]}" | awk -v name="$VERSION_CODENAME" '$1 == "deb" && ($3 == name || $4 == name)' >"$list"
    sources=()
    for file in "$file" "$list"; do [ ! -s "$file" ] || sources+=("$file"); done
fi
say "building the root file system (${VERSION_CODENAME}) from ${sources[*]}"
options=()
for path in "${excluded[@]}"; do options+=(--dpkgopt="path-exclude=$path"); done
include="$(IFS=,; echo "${packages[*]}")"
mmdebstrap --verbose --mode=root --variant=minbase --format=tar \
    --include="$include" \
    "${options[@]}" \
    --dpkgopt=force-unsafe-io \
    --aptopt='Acquire::Languages "none"' --aptopt='APT::Install-Recommends "false"' \
    --setup-hook="cp -a '$before/.' \"\$1\"" \
    "$VERSION_CODENAME" "$work/root.tar" "${sources[@]}" >"$work/mmdebstrap.log" 2>&1 || {
    tail -40 "$work/mmdebstrap.log" >&2
    say "the root file system could not be built"
    exit 1
}
root="$work/root"
mkdir "$root"
tar --extract --numeric-owner --xattrs --file "$work/root.tar" --directory "$root" --exclude './dev/*'
rm "$work/root.tar"

# ---------------------------------------------------------------------------------------------- configuration

say "configuring it"
put() { # PATH: standard input becomes this file of the image
    mkdir -p "$(dirname -- "$root/$1")"
    cat >"$root/$1"
}

# Every Ethernet card, by DHCP, under whatever name it has. The MAC is the client id, as it was for the firmware, iPXE
# and the loader: one machine keeps one lease from power-on to the installed system.
put etc/systemd/network/80-lab.network <<'END'
[Match]
Type=ether

[Network]
DHCP=ipv4
IPv6AcceptRA=no
LinkLocalAddressing=ipv6

[DHCPv4]
ClientIdentifier=mac
RouteMetric=100

[Link]
RequiredForOnline=no
END
ln -sf /lib/systemd/system/systemd-networkd.service "$root/etc/systemd/system/dbus-org.freedesktop.network1.service"
mkdir -p "$root/etc/systemd/system/multi-user.target.wants" "$root/etc/systemd/system/getty.target.wants"
ln -sf /lib/systemd/system/systemd-networkd.service \
    "$root/etc/systemd/system/multi-user.target.wants/systemd-networkd.service"
ln -sf /lib/systemd/system/serial-getty@.service \
    "$root/etc/systemd/system/getty.target.wants/serial-getty@ttyS0.service"
# The prompt shows the machine's own name, so it waits until cloud-init has set it.
put etc/systemd/system/serial-getty@.service.d/lab.conf <<'END'
[Unit]
After=cloud-init.service
END
# Nobody here reads the journal of a previous boot.
put etc/systemd/journald.conf.d/lab.conf <<'END'
[Journal]
Storage=volatile
END

# cloud-init: a CIDATA file system or nothing, and only the modules that a deployment uses. It is started always, so
# the generator that looks over the hardware first is not needed; and it checks its input against a JSON schema only
# where it finds the library, whose import is a sixth of its start.
rm "$root"/lib/systemd/system-generators/cloud-init-generator
ln -sf /lib/systemd/system/cloud-init.target "$root/etc/systemd/system/multi-user.target.wants/cloud-init.target"
rm -r "$root"/usr/lib/python3/dist-packages/jsonschema
put etc/cloud/cloud.cfg.d/99-lab.cfg <<'END'
datasource_list: [NoCloud, None]
network: {config: disabled}
manage_etc_hosts: true
preserve_hostname: false
ssh_genkeytypes: [ed25519]
disable_root: false
ssh_pwauth: false
growpart: {mode: auto, devices: [/], ignore_growroot_disabled: false}
resize_rootfs: true
cloud_init_modules: [bootcmd, write-files, growpart, resizefs, set_hostname, update_hostname, update_etc_hosts, users-groups, ssh]
cloud_config_modules: []
cloud_final_modules: [set-passwords, runcmd, scripts-vendor, scripts-per-instance, scripts-user, phone-home, final-message, power-state-change]
END

echo debian >"$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 debian\n' >"$root/etc/hosts"
: >"$root/etc/machine-id"
rm -f "$root"/etc/ssh/ssh_host_* "$root"/var/lib/dbus/machine-id "$root"/etc/resolv.conf
# The host's package sources are the host's affair; the image must not carry its mirror's address.
rm -rf "$root"/etc/apt/sources.list "$root"/etc/apt/sources.list.d/* "$root"/var/lib/apt/lists/* \
    "$root"/var/cache/apt/* "$root"/var/log/*.log "$root"/var/log/apt "$root"/var/cache/debconf/*-old "$root"/boot/grub

vmlinuz="$(cd "$root/boot" && ls vmlinuz-* | tail -1)"
initrd="$(cd "$root/boot" && ls initrd.img-* | tail -1)"

# What tells one image from the other, so that only a system that has come up to its login prompt says it (the boot menu
# does not): written into the finished file system, so that the two share every other byte.
variant_files() { # LETTER UUID FOLDER
    mkdir -p "$3"
    printf 'swarmboot lab image %s \\n \\l\n\n' "${1^^}" >"$3/issue"
    printf 'swarmboot lab image %s\n' "${1^^}" >"$3/motd"
    printf 'UUID=%s / ext4 errors=remount-ro 0 0\n' "$2" >"$3/fstab"
    cat >"$3/grub.cfg" <<END
serial --unit=0 --speed=115200
terminal_output serial console
terminal_input serial console
set timeout=0
menuentry 'lab' {
    linux /boot/$vmlinuz root=UUID=$2 $kernel_arguments
    initrd /boot/$initrd
}
END
}
variant_files a "$root_uuid_a" "$work/a"
variant_files b "$root_uuid_b" "$work/b"
# Image B has a program that A lacks: 6 MiB that do not compress, the same bytes in every build.
perl -MDigest::SHA=sha512 -e 'print sha512($_) for 1..98304' >"$work/b/payload"
install -m 644 "$work/a/issue" "$work/a/motd" "$work/a/fstab" "$root/etc/"
install -D -m 644 "$work/a/grub.cfg" "$root/boot/grub/grub.cfg"

# ---------------------------------------------------------------------------------------------- the disk

say "making the disks"
# Checksummed metadata would carry the file system's UUID into every directory block: A and B would then differ in
# almost every chunk, and no reinstall could show what it saves.
# The list is spelled out, because newer defaults also hold features that GRUB cannot read.
features=none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file
features+=,huge_file,dir_nlink,extra_isize
truncate --size $((root_sectors * sector)) "$work/root-a.ext4"
mke2fs -q -t ext4 -L lab-root -U "$root_uuid_a" -m 1 -O "$features" -J size=16 \
    -E "lazy_itable_init=0,lazy_journal_init=0,hash_seed=$root_uuid_a" -d "$root" "$work/root-a.ext4"
rm -rf "$root"
cp --sparse=always "$work/root-a.ext4" "$work/root-b.ext4"
tune2fs -U "$root_uuid_b" "$work/root-b.ext4" >/dev/null
debugfs -w -f - "$work/root-b.ext4" >/dev/null 2>"$work/debugfs.log" <<END
rm /etc/issue
rm /etc/motd
rm /etc/fstab
rm /boot/grub/grub.cfg
write $work/b/issue /etc/issue
write $work/b/motd /etc/motd
write $work/b/fstab /etc/fstab
write $work/b/grub.cfg /boot/grub/grub.cfg
write $work/b/payload /usr/local/lib/lab-b.bin
END
for letter in a b; do
    e2fsck -fn "$work/root-$letter.ext4" >"$work/fsck.log" 2>&1 || {
        cat "$work/debugfs.log" "$work/fsck.log" >&2
        say "the root file system of image $letter is damaged"
        exit 1
    }
done

# GRUB takes the third partition of whichever disk it was started from, so that a second disk with the same image
# never wins.
grub_prefix='(,gpt3)/boot/grub'
grub_modules=(part_gpt ext2 normal linux search configfile echo test serial terminal)
grub-mkimage --format i386-pc --prefix "$grub_prefix" --output "$work/core.img" biosdisk "${grub_modules[@]}"
grub-mkimage --format x86_64-efi --prefix "$grub_prefix" --output "$work/bootx64.efi" fat "${grub_modules[@]}"
truncate --size $((esp_sectors * sector)) "$work/esp.fat"
mkfs.vfat -n ESP -i 5b000001 "$work/esp.fat" >/dev/null
mmd -i "$work/esp.fat" ::/EFI ::/EFI/BOOT
mcopy -i "$work/esp.fat" "$work/bootx64.efi" ::/EFI/BOOT/BOOTX64.EFI

# boot.img goes into the protective MBR up to its partition table, with the address of core.img in the field that
# GRUB calls kernel_sector, and with the jump that distrusts the BIOS's drive number turned into two no-ops, as
# grub-install does for hard disks. core.img begins with a block list whose first address is where its second sector is.
cp /usr/lib/grub/i386-pc/boot.img "$work/boot.img"
little_endian() { # NUMBER: as eight bytes
    local i number="$1"
    for i in 0 1 2 3 4 5 6 7; do printf "\\x$(printf %02x $((number >> (8 * i) & 255)))"; done
}
patch_bytes() { dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }
little_endian $bios_lba | patch_bytes "$work/boot.img" $((0x5c))
printf '\x90\x90' | patch_bytes "$work/boot.img" $((0x66))
little_endian $((bios_lba + 1)) | patch_bytes "$work/core.img" $((0x1f4))
[ "$(stat --format=%s "$work/core.img")" -le $((bios_sectors * sector)) ]

for letter in a b; do
    disk="$work/debian-$letter.img"
    truncate --size $((disk_sectors * sector)) "$disk"
    sgdisk --clear --set-alignment=2048 --disk-guid="5b0${letter}0000-0000-4000-8000-0000000000ff" \
        --new="1:$bios_lba:$((bios_lba + bios_sectors - 1))" --typecode=1:ef02 --change-name=1:bios \
        --new="2:$esp_lba:$((esp_lba + esp_sectors - 1))" --typecode=2:ef00 --change-name=2:esp \
        --new="3:$root_lba:$((root_lba + root_sectors - 1))" --typecode=3:8304 --change-name=3:root \
        --partition-guid="1:5b0${letter}0000-0000-4000-8000-000000000001" \
        --partition-guid="2:5b0${letter}0000-0000-4000-8000-000000000002" \
        --partition-guid="3:5b0${letter}0000-0000-4000-8000-000000000003" "$disk" >/dev/null
    dd if="$work/boot.img" of="$disk" bs=440 count=1 conv=notrunc status=none
    dd if="$work/core.img" of="$disk" bs=$sector seek=$bios_lba conv=notrunc status=none
    dd if="$work/esp.fat" of="$disk" bs=$sector seek=$esp_lba conv=notrunc,sparse status=none
    dd if="$work/root-$letter.ext4" of="$disk" bs=1M seek=$((root_lba / 2048)) conv=notrunc,sparse status=none
    mv "$disk" "$dir/"
done
echo "$key" >"$dir/image.key"
say "two images of $((disk_sectors / 2048)) MiB in $((SECONDS - started)) s"
printf '%s\n' "$dir/debian-a.img" "$dir/debian-b.img"
