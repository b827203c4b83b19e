//! Imports from small sources that have the layout of real ones.

use super::super::deb::tests::package;
use super::*;
use common::testing::{kernel_file, module_file};

const RELEASE: &str = "6.1.0-9-amd64";

/// The files of a kernel package with one network and one disk driver, and their dependencies.
fn kernel_files() -> Vec<(String, Vec<u8>)> {
    let magic = format!("vermagic={RELEASE} SMP");
    let ko = |path: &str, info: &[&str]| {
        let info = [info, &[magic.as_str()]].concat();
        (format!("./lib/modules/{RELEASE}/kernel/{path}"), module_file(&info))
    };
    vec![
        (format!("./boot/vmlinuz-{RELEASE}"), kernel_file(RELEASE)),
        (format!("./boot/config-{RELEASE}"), b"CONFIG_RD_ZSTD=y\n".to_vec()),
        (format!("./lib/modules/{RELEASE}/modules.builtin"), b"kernel/lib/built-in.ko\n".to_vec()),
        ko(
            "drivers/net/ethernet/realtek/r8169.ko",
            &[
                "alias=pci:v000010ECd00008168sv*sd*bc*sc*i*",
                "depends=libphy,built-in",
                "softdep=pre: realtek",
                "firmware=rtl_nic/a.fw",
                "firmware=rtl_nic/b.fw",
            ],
        ),
        ko("drivers/net/phy/libphy.ko", &["depends="]),
        ko("drivers/net/phy/realtek.ko", &["depends=libphy"]),
        ko("drivers/scsi/sd_mod.ko", &["alias=scsi:t-0x00*", "depends=scsi_mod", "softdep=pre: crc-t"]),
        ko("drivers/scsi/scsi_mod.ko", &["depends="]),
        ko("drivers/scsi/isci/broken.ko", &["depends=not_there"]),
        ko("crypto/crct_generic.ko", &["alias=crc-t", "depends="]),
        ko("fs/ext4/ext4.ko", &["depends="]),
    ]
}

fn boot_files() -> Vec<(String, Vec<u8>)> {
    vec![
        ("./usr/lib/ipxe/undionly.kpxe".to_owned(), b"bios".to_vec()),
        ("./boot/ipxe.efi".to_owned(), b"uefi".to_vec()),
        ("./usr/lib/firmware/rtl_nic/a.fw.xz".to_owned(), xz(b"firmware")),
    ]
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    std::io::Read::read_to_end(&mut liblzma::read::XzEncoder::new(bytes, 1), &mut out).unwrap();
    out
}

pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) kits: Kits,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("loader"), b"loader").unwrap();
        let kits = Kits::open(dir.path()).unwrap();
        Self { dir, kits }
    }

    /// A bench with one small kit.
    pub(crate) fn imported() -> Self {
        let bench = Self::new();
        bench.import(vec![bench.folder("root", &[kernel_files(), boot_files()].concat())]).unwrap();
        bench
    }

    fn deb(&self, name: &str, files: &[(String, Vec<u8>)]) -> Source {
        let path = self.dir.path().join(name);
        let files: Vec<(&str, &[u8])> =
            files.iter().map(|(path, bytes)| (path.as_str(), &bytes[..])).collect();
        let links = [("./usr/lib/ipxe/ipxe.efi", "/boot/ipxe.efi")];
        fs::write(&path, package(&files, if name.contains("ipxe") { &links } else { &[] }, ".xz")).unwrap();
        Source::Path(path)
    }

    fn folder(&self, name: &str, files: &[(String, Vec<u8>)]) -> Source {
        let root = self.dir.path().join(name);
        for (path, bytes) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        Source::Path(root)
    }

    fn import(&self, sources: Vec<Source>) -> Result<store::KitInfo> {
        let loader = self.dir.path().join("loader");
        let spec = ImportSpec { name: None, sources, kernel: None, loader, replace: false };
        self.kits.import(&spec, &mut |_| {})
    }

    fn left_over(&self) -> Vec<String> {
        let names = fs::read_dir(self.kits.dir()).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).filter(|name| name != ".lock").collect()
    }
}

#[test]
fn a_kit_is_made_from_packages() {
    let bench = Bench::new();
    let sources = vec![bench.deb("linux.deb", &kernel_files()), bench.deb("ipxe.deb", &boot_files())];
    let info = bench.import(sources).unwrap();
    assert_eq!((info.name.as_str(), info.kernel.as_str(), info.default), (RELEASE, RELEASE, true));
    assert_eq!(info.boot_programs, ["ipxe.efi", "undionly.kpxe"]);
    assert_eq!(info.firmware, 1);

    let kit = bench.kits.default_kit().unwrap();
    let names: Vec<&str> = kit.modules().modules().iter().map(|module| module.name.as_str()).collect();
    assert_eq!(names, ["crct_generic", "ext4", "libphy", "r8169", "realtek", "scsi_mod", "sd_mod"]);
    assert_eq!(kit.read("firmware/rtl_nic/a.fw").unwrap(), b"firmware");
    assert_eq!(kit.boot_programs().unwrap()["ipxe.efi"], b"uefi");
    assert_eq!(fs::read(kit.kernel_path()).unwrap(), kernel_file(RELEASE));
    assert!(info.warnings.iter().any(|text| text.contains("broken")), "{:?}", info.warnings);
    assert!(info.warnings.iter().any(|text| text.contains("r8169")), "{:?}", info.warnings);
    assert_eq!(bench.left_over(), [RELEASE]);
}

#[test]
fn the_loader_has_what_the_kernel_and_the_loader_look_for() {
    let bench = Bench::new();
    bench.import(vec![bench.folder("root", &[kernel_files(), boot_files()].concat())]).unwrap();
    let kit = bench.kits.get(RELEASE).unwrap();
    let files = files_in(&zstd::decode_all(&fs::read(kit.loader_img_path()).unwrap()[..]).unwrap());
    assert_eq!(files["init"], (0o100_755, b"loader".to_vec()));
    assert_eq!(files["dev/console"].0, 0o020_600);
    assert!(files.contains_key("proc") && files.contains_key("lib/firmware/rtl_nic/a.fw"));
    let index: ModuleIndex = serde_json::from_slice(&files["lib/modules.json"].1).unwrap();
    for module in index.modules() {
        assert!(files.contains_key(&format!("lib/modules/{}", module.path)), "{}", module.path);
    }
    assert_eq!(index.wanted("scsi:t-0x00"), ["sd_mod"]);

    let loader = bench.dir.path().join("loader");
    assert!(!bench.kits.refresh_loader(RELEASE, &loader).unwrap());
    fs::write(&loader, b"newer").unwrap();
    assert!(bench.kits.refresh_loader(RELEASE, &loader).unwrap());
    assert!(bench.kits.get(RELEASE).unwrap().read("loader.img").is_ok());
}

/// The files of an archive, each with its mode.
fn files_in(archive: &[u8]) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut rest = archive;
    let mut files = BTreeMap::new();
    loop {
        let mut reader = cpio::newc::Reader::new(rest).unwrap();
        if reader.entry().is_trailer() {
            return files;
        }
        let (name, mode) = (reader.entry().name().to_owned(), reader.entry().mode());
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut bytes).unwrap();
        files.insert(name, (mode, bytes));
        rest = reader.finish().unwrap();
    }
}

#[test]
fn a_small_loader_names_what_it_leaves_out() {
    let bench = Bench::imported();
    let kit = bench.kits.default_kit().unwrap();
    let (names, bundle) = (["libphy", "r8169", "realtek"].map(str::to_owned), Hash::of(b"bundle"));
    let agent = initramfs::agent_archive(&kit, b"agent".to_vec()).unwrap();
    let small = initramfs::small_initramfs(&kit, &names, &agent, bundle).unwrap();
    assert_eq!(small, initramfs::small_initramfs(&kit, &names, &agent, bundle).unwrap());
    let both = zstd::decode_all(&small[..]).unwrap();
    assert_eq!(
        both,
        [
            zstd::decode_all(&small[..small.len() - agent.len()]).unwrap(),
            zstd::decode_all(&agent[..]).unwrap()
        ]
        .concat()
    );
    let (mut files, own) = (files_in(&both), files_in(&zstd::decode_all(&agent[..]).unwrap()));
    assert!(!files.contains_key("init"), "it is in the archive that small loaders share");
    files.extend(own);
    assert_eq!(files["init"], (0o100_755, b"agent".to_vec()));
    let loader: common::modules::LoaderKit = serde_json::from_slice(&files["lib/kit.json"].1).unwrap();
    assert_eq!((loader.agent, loader.drivers), (Some(bundle), kit.drivers()));
    // Each file that the general loader has is there, or is named with its hash.
    let index: ModuleIndex = serde_json::from_slice(&files["lib/modules.json"].1).unwrap();
    assert_eq!(index.modules().len(), 6);
    for module in index.modules() {
        let path = format!("lib/modules/{}", module.path);
        assert_eq!(files.contains_key(&path), names.contains(&module.name), "{path}");
        let bytes = kit.read(&format!("modules/{}", module.path)).unwrap();
        let named = loader.remote.get(&path).map(|file| (file.bytes, file.hash));
        let wanted = (bytes.len() as u64, Hash::of(&bytes));
        assert_eq!(named, (!names.contains(&module.name)).then_some(wanted), "{path}");
    }
    assert!(files.contains_key("lib/firmware/rtl_nic/a.fw"));
    // A kernel that can unpack xz gets that; of a kit of an earlier version it is not known.
    let mut kit = kit.as_ref().clone();
    kit.record.xz = true;
    let agent = initramfs::agent_archive(&kit, b"agent".to_vec()).unwrap();
    let small = initramfs::small_initramfs(&kit, &names, &agent, bundle).unwrap();
    assert!(small.starts_with(b"\xfd7zXZ") && small.ends_with(&agent) && agent.starts_with(b"\xfd7zXZ"));
}

#[test]
fn what_is_missing_is_named_and_nothing_is_left() {
    let bench = Bench::new();
    let without = |part: &str| -> Vec<(String, Vec<u8>)> {
        [kernel_files(), boot_files()].concat().into_iter().filter(|(path, _)| !path.contains(part)).collect()
    };
    let cases = [
        ("boot/vmlinuz", "linux-image-amd64"),
        ("kernel/", "linux-modules"),
        ("ethernet", "linux-modules-extra"),
        ("ipxe", "apt install ipxe"),
    ];
    for (number, (part, hint)) in cases.into_iter().enumerate() {
        let error = bench.import(vec![bench.folder(&number.to_string(), &without(part))]).unwrap_err();
        assert!(error.hint().unwrap().contains(hint), "{part}: {error} ({:?})", error.hint());
    }
    let error = bench.import(vec![Source::Path(bench.dir.path().join("loader"))]).unwrap_err();
    assert!(matches!(error, KitError::Source(_)), "{error}");
    assert_eq!(bench.left_over(), [""; 0]);
}

#[test]
fn a_kit_in_use_is_not_replaced_unasked_and_damage_is_seen() {
    let bench = Bench::new();
    let source = bench.folder("root", &[kernel_files(), boot_files()].concat());
    bench.import(vec![source.clone()]).unwrap();
    assert!(matches!(bench.import(vec![source]).unwrap_err(), KitError::Exists(_)));

    let kit = bench.kits.get(RELEASE).unwrap();
    fs::write(kit.dir.join("boot/ipxe.efi"), b"evil").unwrap();
    assert!(matches!(kit.boot_programs().unwrap_err(), KitError::Changed(_)));
    bench.kits.remove(RELEASE).unwrap();
    assert_eq!(bench.left_over(), [""; 0]);
}

#[test]
fn a_kernel_that_is_none_is_refused() {
    let bench = Bench::new();
    let mut files = [kernel_files(), boot_files()].concat();
    files[0].1 = b"not a kernel".to_vec();
    assert!(matches!(bench.import(vec![bench.folder("a", &files)]).unwrap_err(), KitError::Kernel { .. }));
    files[0].1 = kernel_file("5.10.0-1-amd64");
    let error = bench.import(vec![bench.folder("b", &files)]).unwrap_err();
    assert!(error.to_string().contains("5.10.0-1-amd64"), "{error}");
}

#[test]
fn stopping_ends_an_import_and_leaves_nothing() {
    for at in ["Unpacking", "Modules", "Compressing", "Syncing"] {
        let bench = Bench::new();
        let sources = vec![bench.deb("linux.deb", &kernel_files()), bench.deb("ipxe.deb", &boot_files())];
        let loader = bench.dir.path().join("loader");
        let spec = ImportSpec { name: None, sources, kernel: None, loader, replace: false };
        let stopper = bench.kits.clone();
        let ended = bench.kits.import(&spec, &mut |told| {
            if format!("{told:?}").starts_with(at) {
                stopper.stop();
            }
        });
        assert!(matches!(ended, Err(KitError::Stopped)), "{at}: {ended:?}");
        assert!(bench.left_over().is_empty(), "{at}: {:?}", bench.left_over());
    }
}
