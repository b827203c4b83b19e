//! Core: parses the `.modinfo` section of a kernel module. A package has no output of `depmod`, so the index is
//! computed from the modules. Touches nothing.

use common::modules::{Module, module_name};
use object::{Object as _, ObjectSection as _};

/// Modules that request others by name while they run, which only works where there is a `modprobe`: here these are
/// loaded after them. mlx4_core requests mlx4_en when it finds an Ethernet port.
const ASKED_FOR: [(&str, &str); 1] = [("mlx4_core", "mlx4_en")];

/// Parses the module file `bytes`. `path` is where it will be in the kit; `release` is the kernel that it must have
/// been built for.
///
/// # Errors
/// In words, when it is no module of that kernel.
pub(crate) fn read_module(bytes: &[u8], path: &str, release: &str) -> Result<Module, String> {
    let file = object::File::parse(bytes).map_err(|error| format!("no ELF file: {error}"))?;
    if file.architecture() != object::Architecture::X86_64 {
        return Err("not for x86-64".to_owned());
    }
    let section = file.section_by_name(".modinfo").ok_or("no .modinfo section")?;
    let info = section.data().map_err(|error| format!("its .modinfo cannot be read: {error}"))?;
    let mut module = Module { name: stem(path).to_owned(), path: path.to_owned(), ..Module::default() };
    for entry in info.split(|&byte| byte == 0) {
        let entry = String::from_utf8_lossy(entry);
        let Some((key, value)) = entry.split_once('=') else { continue };
        match key {
            "vermagic" if value.split(' ').next() != Some(release) => {
                return Err(format!("built for kernel {}", value.split(' ').next().unwrap_or_default()));
            }
            "alias" => module.aliases.push(value.to_owned()),
            "firmware" => module.firmware.push(value.to_owned()),
            "depends" => module
                .depends
                .extend(value.split(',').map(str::trim).filter(|name| !name.is_empty()).map(module_name)),
            "softdep" => read_softdep(value, &mut module),
            _ => {}
        }
    }
    let after = ASKED_FOR.iter().filter(|(name, _)| *name == module.name);
    module.post.extend(after.map(|(_, asked)| (*asked).to_owned()));
    module.aliases.sort();
    module.aliases.dedup();
    module.firmware.sort();
    module.firmware.dedup();
    Ok(module)
}

/// The entry point of `tests/fuzz`: parses a module file, and makes an index of it.
#[cfg(fuzzing)]
pub fn try_module(bytes: &[u8]) {
    const RELEASE: &str = "6.1.0-9-amd64";
    let Ok(module) = read_module(bytes, "kernel/drivers/net/a-b.ko", RELEASE) else { return };
    assert_eq!(module.name, "a-b");
    let aliases = module.aliases.clone();
    let Ok(index) = common::modules::ModuleIndex::new(RELEASE.to_owned(), vec![module], []) else { return };
    for alias in aliases.iter().take(8) {
        let _ = index.load_order(alias);
    }
    let again = serde_json::to_vec(&index).ok().and_then(|text| serde_json::from_slice(&text).ok());
    assert_eq!(again, Some(index), "an index is read as it is written");
}

/// Parses `pre: a b post: c`; names before the first marker are ignored, as `modprobe` does.
fn read_softdep(text: &str, module: &mut Module) {
    let mut into: Option<&mut Vec<String>> = None;
    for word in text.split_ascii_whitespace() {
        match word {
            "pre:" => into = Some(&mut module.pre),
            "post:" => into = Some(&mut module.post),
            name => {
                if let Some(list) = &mut into {
                    list.push(name.to_owned());
                }
            }
        }
    }
}

/// The name of the module in the file `path`: `tg3` for `kernel/drivers/net/tg3.ko.xz`.
pub(crate) fn stem_name(path: &str) -> String {
    module_name(stem(path))
}

fn stem(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split_once(".ko").map_or(file, |(stem, _)| stem)
}

#[cfg(test)]
mod tests {
    use common::testing::module_file;

    use super::*;

    #[test]
    fn a_module_says_what_it_drives_and_needs() {
        let file = module_file(&[
            "alias=pci:v000010ECd00008168sv*sd*bc*sc*i*",
            "firmware=rtl_nic/rtl8168h-2.fw",
            "depends=libphy,mdio-devres",
            "softdep=pre: realtek post: later",
            "vermagic=6.1.0-9-amd64 SMP preempt mod_unload modversions ",
            "nonsense",
        ]);
        let module =
            read_module(&file, "kernel/drivers/net/ethernet/realtek/r8169.ko", "6.1.0-9-amd64").unwrap();
        assert_eq!(module.name, "r8169");
        assert_eq!(module.depends, ["libphy", "mdio_devres"]);
        assert_eq!(
            (module.pre.as_slice(), module.post.as_slice()),
            (&["realtek".to_owned()][..], &["later".to_owned()][..])
        );
        assert_eq!(module.firmware, ["rtl_nic/rtl8168h-2.fw"]);
        assert_eq!(module.aliases.len(), 1);
        assert!(read_module(&file, "r8169.ko", "6.1.0-10-amd64").unwrap_err().contains("6.1.0-9-amd64"));
    }

    #[test]
    fn what_is_no_module_is_refused() {
        let file = module_file(&["depends="]);
        for cut in 0..file.len() {
            // Some cuts leave a file that still parses; none may panic.
            let _ = read_module(&file[..cut], "a.ko", "6");
        }
        assert!(read_module(b"", "a.ko", "6").is_err());
        assert!(read_module(b"\x7fELF", "a.ko", "6").is_err());
    }

    #[test]
    fn a_name_is_the_file_without_its_endings() {
        for (path, name) in [("a/b/virtio-net.ko.xz", "virtio_net"), ("tg3.ko", "tg3"), ("x/y.ko.zst", "y")] {
            assert_eq!(stem_name(path), name);
        }
    }
}
