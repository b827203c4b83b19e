#!/usr/bin/env bash
# Owns the lab's image A with other roots: XFS, and btrfs whose root is in the subvolume `@`, which only the kernel's
# command line names, as Ubuntu installs it. They boot with BIOS, as image A does.
#
#     tests/lab/roots.sh [DIRECTORY]     default target/lab; prints the paths of the two images
#
# A file system of either kind is filled by mounting it: in a namespace of its own, which takes the mounts along when it
# ends. The kernel's modules for them are those of the lab's boot kit, whose kernel is the image's.
set -eu
umask 022
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"

here="$(dirname "$(readlink -f "$0")")"
dir="${1:-target/lab}"
dir="$(mkdir -p "$dir" && cd "$dir" && pwd)"
base="$("$here/image.sh" "$dir" | head -1)"
mkdir -p "$dir/roots"

key="$(cat "$0" "$dir/image.key" | sha256sum | cut -c1-16)"
exec 9>"$dir/roots/.lock"
flock 9
if [ "$(cat "$dir/roots/key" 2>/dev/null)" = "$key" ]; then
    printf '%s\n' "$dir/roots/debian-xfs.img" "$dir/roots/debian-btrfs.img"
    exit 0
fi
[ "$(id -u)" -eq 0 ] || { echo "roots.sh: mounting needs root; hint: sudo $0" >&2; exit 2; }
for program in mkfs.xfs mkfs.btrfs sgdisk grub-mkimage; do
    command -v "$program" >/dev/null || { echo "roots.sh: $program is missing; hint: run tests/setup" >&2; exit 2; }
done
rm -f "$dir/roots/key"
work="$(mktemp -d "$dir/roots/.work.XXXXXX")"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Where image.sh puts them, in sectors of 512 bytes; the root is longer here, because btrfs keeps two copies of some.
bios_lba=2048 bios_sectors=2048 esp_lba=4096 esp_sectors=32768
base_lba=36864 root_lba=36864 root_sectors=$((1400 * 2048))
disk_sectors=$((root_lba + root_sectors + 2048))

kernel_package="$("$here/kernel.sh" "$dir" | grep --max-count=1 linux-image)"
dpkg-deb --fsys-tarfile "$kernel_package" | tar --extract --directory "$work" --wildcards \
    '*/kernel/fs/xfs/*' '*/kernel/fs/btrfs/*'

little_endian() { # NUMBER: as eight bytes
    local i number="$1"
    for i in 0 1 2 3 4 5 6 7; do printf "\\x$(printf %02x $((number >> (8 * i) & 255)))"; done
}

fill() { # KIND UUID: what of this runs in a namespace of mounts
    mkdir -p "$work/old" "$work/new"
    mount -o "ro,noload,loop,offset=$((base_lba * 512))" "$base" "$work/old"
    mount -o loop "$work/$1" "$work/new"
    local root="$work/new" inside="" flags=""
    if [ "$1" = btrfs ]; then
        btrfs subvolume create "$work/new/@" >/dev/null
        root="$work/new/@" inside=/@ flags='rootflags=subvol=@'
    fi
    cp -a "$work/old/." "$root/"
    local release
    release="$(ls "$root/lib/modules")"
    [ -d "$work/lib/modules/$release" ] || {
        echo "roots.sh: the image's kernel is $release and the boot kit's is not; hint: rm -r $dir/debs $dir/image.key" >&2
        exit 1
    }
    cp -r "$work/lib/modules/$release/kernel/fs" "$root/lib/modules/$release/kernel/"
    depmod --basedir "$root" "$release"
    # No program of the file system is in the image, so none can check it.
    echo "UUID=$2 / $1 defaults 0 0" >"$root/etc/fstab"
    sed -i "s/ ext4 / ext4 $1 /" "$root/etc/initramfs-tools/hooks/lab"
    mount --bind /dev "$root/dev"
    mount -t proc proc "$root/proc"
    chroot "$root" update-initramfs -u -k "$release" >"$work/initramfs.log" 2>&1 || { cat "$work/initramfs.log" >&2; exit 1; }
    umount "$root/proc" "$root/dev"
    sed -i -e "s|root=UUID=[^ ]*|root=UUID=$2 $flags|" -e "s| /boot/| $inside/boot/|" "$root/boot/grub/grub.cfg"
    umount "$work/new" "$work/old"
}

image() { # KIND UUID
    local kind="$1" disk="$work/debian-$1.img" prefix='(,gpt3)/boot/grub'
    truncate --size $((root_sectors * 512)) "$work/$kind"
    if [ "$kind" = xfs ]; then
        mkfs.xfs -q -m "uuid=$2" -L lab-root "$work/xfs"
    else
        mkfs.btrfs -q -U "$2" -L lab-root "$work/btrfs" && prefix='(,gpt3)/@/boot/grub'
    fi
    unshare --mount bash -eu -c "$(declare -p work base dir base_lba); $(declare -f fill); fill $kind $2"
    truncate --size $((disk_sectors * 512)) "$disk"
    sgdisk --clear --set-alignment=2048 \
        --new="1:$bios_lba:$((bios_lba + bios_sectors - 1))" --typecode=1:ef02 --change-name=1:bios \
        --new="2:$esp_lba:$((esp_lba + esp_sectors - 1))" --typecode=2:ef00 --change-name=2:esp \
        --new="3:$root_lba:$((root_lba + root_sectors - 1))" --typecode=3:8304 --change-name=3:root "$disk" >/dev/null
    grub-mkimage --format i386-pc --prefix "$prefix" --output "$work/core.img" \
        biosdisk part_gpt "$kind" normal linux search configfile echo test serial terminal
    little_endian $((bios_lba + 1)) | dd of="$work/core.img" bs=1 seek=$((0x1f4)) conv=notrunc status=none
    [ "$(stat --format=%s "$work/core.img")" -le $((bios_sectors * 512)) ]
    dd if="$base" of="$disk" bs=440 count=1 conv=notrunc status=none
    dd if="$work/core.img" of="$disk" bs=512 seek=$bios_lba conv=notrunc status=none
    dd if="$base" of="$disk" bs=512 skip=$esp_lba seek=$esp_lba count=$esp_sectors conv=notrunc,sparse status=none
    dd if="$work/$kind" of="$disk" bs=1M seek=$((root_lba / 2048)) conv=notrunc,sparse status=none
    rm "$work/$kind"
    mv "$disk" "$dir/roots/"
}

echo "roots.sh: making image A with XFS and with btrfs" >&2
# Standard output is for the paths alone.
image xfs 5b0e0000-0000-4000-8000-00000000000e >&2
image btrfs 5b0f0000-0000-4000-8000-00000000000f >&2
echo "$key" >"$dir/roots/key"
printf '%s\n' "$dir/roots/debian-xfs.img" "$dir/roots/debian-btrfs.img"
