#!/usr/bin/env bash
# Owns variants of the lab's image A, each with one thing that real images have and the lab's does not.
#
#     tests/lab/variant.sh IMAGE net|noboot OUT
#
# net: the network is left to cloud-init, as Ubuntu's, Fedora's and Rocky's cloud images do it.
# noboot: the EFI system partition holds a vendor's folder and no fallback loader, as that of an installed system may.
set -eu
export PATH="$PATH:/usr/sbin:/sbin"
image="$1" kind="$2" out="$3"
cp --sparse=always "$image" "$out"
# Where tests/lab/image.sh puts them, in sectors of 512 bytes.
esp_lba=4096 root_lba=36864 root_sectors=2007040

case "$kind" in
    net)
        root="$out.root"
        dd if="$out" of="$root" bs=1M skip=$((root_lba / 2048)) count=$((root_sectors / 2048)) conv=sparse status=none
        debugfs -R 'cat /etc/cloud/cloud.cfg.d/99-lab.cfg' "$root" 2>/dev/null | grep -v '^network:' >"$out.cfg"
        debugfs -w -f - "$root" >"$out.log" 2>&1 <<END_OF_COMMANDS
rm /etc/systemd/network/80-lab.network
rm /etc/cloud/cloud.cfg.d/99-lab.cfg
write $out.cfg /etc/cloud/cloud.cfg.d/99-lab.cfg
rm /etc/systemd/system/cloud-init-local.service
symlink /etc/systemd/system/cloud-init.target.wants/cloud-init-local.service /lib/systemd/system/cloud-init-local.service
END_OF_COMMANDS
        e2fsck -fn "$root" >>"$out.log" 2>&1 || { cat "$out.log" >&2; exit 1; }
        dd if="$root" of="$out" bs=1M seek=$((root_lba / 2048)) conv=notrunc status=none
        rm -f "$root" "$out.cfg" "$out.log"
        ;;
    noboot)
        esp="$out@@$((esp_lba * 512))"
        mcopy -i "$esp" ::/EFI/BOOT/BOOTX64.EFI "$out.efi"
        mmd -i "$esp" ::/EFI/debian
        mcopy -i "$esp" "$out.efi" ::/EFI/debian/grubx64.efi
        mdeltree -i "$esp" ::/EFI/BOOT
        rm -f "$out.efi"
        ;;
    *)
        echo "variant.sh: no variant '$kind'" >&2
        exit 2
        ;;
esac
