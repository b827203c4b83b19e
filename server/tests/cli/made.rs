//! The files that the transcripts' commands name: images, keys, configurations, and a root file system with the
//! smallest kernel that a kit can be made of. Touches the folder that it is given.

use std::fs;
use std::path::Path;

use common::testing::{kernel_file, module_file};

const RELEASE: &str = "6.1.0-9-amd64";

/// Writes all files into `folder`.
pub(crate) fn files(folder: &Path) {
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    write("disk.img", &disk());
    write("words.txt", b"no image at all\n");
    write("empty.img", b"");
    write(
        "key.pub",
        b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f admin@example\n",
    );
    write("user-data", b"#cloud-config\npackages: [htop]\n");
    write("keeps-silent", b"#cloud-config\nvendor_data: {enabled: false}\n");
    write("unknown.toml", b"interfaces = \"nowhere0\"\n");
    write(
        "good.toml",
        b"http_port = 8070\nlimit = \"50M\"\n[[site]]\nname = \"branch\"\nsubnets = [\"10.1.0.0/16\"]\n",
    );
    write(
        "bad.toml",
        b"interface = \"lo\"\nhttp-port = 8070\nswarm_port = \"4001\"\nlimit = \"fast\"\nboot_peers = \"yes\"\n[[site]]\nname = \"a\"\n\
          subnets = [\"10.1.0.0/16\"]\n[[site]]\nname = \"b\"\nsubnets = [\"10.2.0.0/16\", \"10.1.0.0/16\"]\n",
    );
    write(
        "told.toml",
        b"interface = \"lo\"\n[[webhook]]\nname = \"chat\"\nurl = \"https://me:T0K3N@chat.example/\"\n\
          secret_file = \"/etc/chat\"\n[[webhook]]\nname = \"b\"\nurl = \"https://chat.example/T0K3N\"\n\
          secrets_file = \"x\"\n[[webhook]]\nname = \"c\"\nurl = \"https://a\"\nsecret_file = \"/etc/c\"\n\
          steps = [\"transfre\"]\n[export]\njournal = true\nsyslog = \"10.0.0.5\"\n",
    );
    write(
        "unopened.toml",
        b"interface = \"lo\"\n[[webhook]]\nname = \"chat\"\nurl = \"https://chat.example/hush\"\nsecret_file = \"nowhere\"\n\
          [[webhook]]\nname = \"ops\"\nurl = \"https://chat.example/hush\"\nsecret_file = \"words.txt\"\n\
          [[webhook]]\nname = \"wall\"\nurl = \"https://chat.example/hush\"\nsecret_credential = \"wall\"\n",
    );
    write("range.toml", b"interface = \"nowhere0\"\ndhcp_range = \"10.0.0.9\"\n");
    write(
        "rule.toml",
        b"interface = \"nowhere0\"\n[[rule]]\nwhen = \"memory>=64\"\nset = { memory = \"large\" }\n",
    );
    write("ceiling.toml", b"interface = \"nowhere0\"\nmax_machines = 0\n");
    write("keep.toml", b"interface = \"nowhere0\"\nkeep_events = \"long\"\n");
    write(
        "site.toml",
        b"interface = \"nowhere0\"\n[[site]]\nname = \"branch\"\nsubnets = [\"10.1.0.0/16\"]\nlimit = \"fast\"\n",
    );
    profiles(&write);
    write(&format!("root/boot/vmlinuz-{RELEASE}"), &kernel_file(RELEASE));
    write(&format!("root/boot/config-{RELEASE}"), b"CONFIG_RD_ZSTD=y\n");
    let driver = format!("root/lib/modules/{RELEASE}/kernel/drivers/net/ethernet/realtek/r8169.ko");
    let magic = format!("vermagic={RELEASE} SMP");
    write(&driver, &module_file(&["alias=pci:v000010ECd00008168sv*sd*bc*sc*i*", "depends=", &magic]));
    write("root/usr/lib/ipxe/undionly.kpxe", b"bios");
    write("root/boot/ipxe.efi", b"uefi");
}

/// Profiles, good and bad ones, and the files that they name.
fn profiles(write: &dyn Fn(&str, &[u8])) {
    write("profiles/setup.sh", b"#!/bin/sh\necho SECRET > /etc/secret\n");
    write(
        "profiles/web.toml",
        b"image = \"debian-12\"\nmachines = \"role=web\"\nhostname = \"web-{id}\"\nssh_keys = [\"../key.pub\"]\n\
          user_data_file = \"../user-data\"\nat_end = \"power-off\"\n",
    );
    write(
        "profiles/db.toml",
        b"image = \"debian-12\"\nmachines = \"role=db\"\nconfirm = false\nat_end = \"stay\"\n",
    );
    write(
        "profiles/hooked.toml",
        b"image = \"debian-12\"\nhook_root = \"2\"\n\n\
          [[hook]]\nfile = \"setup.sh\"\ntimeout = 60\non_failure = \"continue\"\n",
    );
    write("profiles/rack.toml", b"image = \"debian-12\"\nmachines = \"rack in (a, b)\"\n");
    write("profiles/mail.toml", b"image = \"debian-12\"\nmachines = \"role=mail\"\n");
    write("profiles/plain.toml", b"image = \"debian-12\"\n");
    write("profiles/warned.toml", b"image = \"debian-12\"\nuser_data = \"packages: [htop]\"\n");
    write(
        "profiles/typos.toml",
        b"imgae = \"debian-12\"\nimage = \"debian-13\"\nmachines = \"memory>=much\"\ndisk = \"colour=red\"\n\
          hostname = 7\nssh_keys = [\n  \"../key.pub\",\n  \"nowhere.pub\",\n]\nat_end = \"explode\"\n\n\
          [[hook]]\nfile = \"setup.sh\"\ntimeout = 0\n\n[[hook]]\nscript = \"true\"\non-failure = \"fail\"\n",
    );
    write("profiles/every.toml", b"image = \"debian-12\"\nmachines = \"\"\n");
    write("profiles/none.toml", b"");
    write("profiles/words.toml", b"no profile at all\n");
    write("profiles/bytes.toml", b"\xff\xfe");
}

/// A disk of 2 MiB with an MBR, boot code, and one partition.
fn disk() -> Vec<u8> {
    let mut disk = vec![0; 2 << 20];
    disk[..4].copy_from_slice(&[0xfa, 0x31, 0xc0, 0x8e]);
    disk[0x1be] = 0x80;
    disk[0x1c2] = 0x83;
    disk[0x1c6..0x1ca].copy_from_slice(&2048_u32.to_le_bytes());
    disk[0x1ca..0x1ce].copy_from_slice(&2048_u32.to_le_bytes());
    disk[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    disk[1 << 20..(1 << 20) + 5].copy_from_slice(b"hello");
    disk
}
