//! Bundles from small kits, and the sizes of real ones where packages are given.

use std::path::PathBuf;

use common::hardware::{Bus, CheckedHardware, Device};

use super::super::loaders::Loaders;
use super::super::modules::needs;
use super::super::nic::{PciId, reaching};
use super::super::plan::tests::{checked, disk, report};
use super::*;
use crate::kit::tests::Bench;
use crate::kit::{ImportSpec, Kits, Progress, Source};

fn machine(aliases: &[&str]) -> CheckedHardware {
    let mut machine = report(vec![disk("sda", Bus::Ata, 1 << 33)]);
    let device = |alias: &&str| Device {
        address: String::new(),
        modalias: (*alias).to_owned(),
        class: 0,
        driver: String::new(),
    };
    machine.devices = aliases.iter().map(device).collect();
    checked(machine)
}

const REALTEK: &str = "pci:v000010ECd00008168sv00001043sd00008677bc02sc00i00";

fn needs_of(kit: &Kit, aliases: &[&str]) -> Needs {
    needs(&machine(aliases), kit.modules(), kit.firmware())
}

#[test]
fn a_bundle_has_what_the_hardware_needs_and_no_more() {
    let bench = Bench::imported();
    let kit = bench.kits.default_kit().unwrap();
    let realtek = needs_of(&kit, &[REALTEK, REALTEK, "pci:v0000FFFFd0000FFFFsv0sd0bc03sc00i00"]);
    assert_eq!(realtek.modules, ["libphy", "r8169", "realtek"]);
    assert_eq!(realtek.firmware, ["rtl_nic/a.fw"]);
    assert_eq!(needs_of(&kit, &["pci:v0000FFFFd0000FFFFsv0sd0bc03sc00i00"]), Needs::default());
    assert_eq!(needs_of(&kit, &["scsi:t-0x00"]).modules, ["crct_generic", "scsi_mod", "sd_mod"]);
}

#[test]
fn equal_machines_share_one_bundle_that_is_built_once() {
    let bench = Bench::imported();
    let kit = bench.kits.default_kit().unwrap();
    let agent = bench.dir.path().join("agent");
    fs::write(&agent, b"agent").unwrap();
    let bundles = Bundles::open(bench.dir.path(), &agent).unwrap();
    let realtek = needs_of(&kit, &[REALTEK]);

    let results: Vec<(Hash, u64)> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..8).map(|_| scope.spawn(|| bundles.get_or_build(&kit, &realtek).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(results.windows(2).all(|pair| pair[0] == pair[1]));
    let path = bundles.path(results[0].0).unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!((Hash::of(&bytes), bytes.len() as u64), results[0]);
    assert!(bundles.built.is_idle());

    // A bundle on the disk is found after a restart; one that was deleted is built again, to the same bytes.
    let again = Bundles::open(bench.dir.path(), &agent).unwrap();
    let written = fs::metadata(&path).unwrap().modified().unwrap();
    assert_eq!(again.get_or_build(&kit, &realtek).unwrap(), results[0]);
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), written);
    fs::remove_file(&path).unwrap();
    assert_eq!(again.get_or_build(&kit, &realtek).unwrap(), results[0]);
    assert!(again.path(results[0].0).is_some());

    let other = again.get_or_build(&kit, &needs_of(&kit, &[])).unwrap();
    assert_ne!(other, results[0]);
    fs::write(&agent, b"newer agent").unwrap();
    assert_ne!(again.get_or_build(&kit, &realtek).unwrap(), results[0]);
}

#[test]
fn a_missing_agent_is_named() {
    let bench = Bench::imported();
    let kit = bench.kits.default_kit().unwrap();
    let bundles = Bundles::open(bench.dir.path(), &bench.dir.path().join("nothing")).unwrap();
    let error = bundles.get_or_build(&kit, &Needs::default()).unwrap_err();
    assert!(matches!(error, BundleError::Agent { .. }) && error.to_string().contains("nothing"));
}

/// The largest sizes that pass. The design wants 3 MiB and 10 MiB; the agent and loader programs, built without
/// link-time optimisation, are what exceeds that.
const BUNDLE_CEILING: u64 = 5 << 20;
const LOADER_CEILING: u64 = 12 << 20;
/// The most that a machine may take before its image, with Debian 12's kernel of 7.9 MiB.
const BOOT_CEILING: u64 = 12 << 20;
/// The same with mlx5, whose module alone has a MB, and mpt3sas, beside which it brings the common controllers unused.
const BOOT_CEILING_MLX5: u64 = 13 << 20;

/// Prints the sizes of a real kit. `SWARMBOOT_TEST_SOURCES` names packages or folders with colons between them,
/// `SWARMBOOT_TEST_LOADER` and `SWARMBOOT_TEST_AGENT` the release programs.
#[test]
#[ignore = "needs a distribution's packages: run ./tests/run"]
fn sizes_of_a_real_kit() {
    let given = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let sources = given("SWARMBOOT_TEST_SOURCES").split(':').map(|path| Source::Path(path.into())).collect();
    let (loader, agent) =
        (PathBuf::from(given("SWARMBOOT_TEST_LOADER")), PathBuf::from(given("SWARMBOOT_TEST_AGENT")));
    let dir = tempfile::tempdir().unwrap();
    let kits = Kits::open(dir.path()).unwrap();
    let spec = ImportSpec { name: None, sources, kernel: None, loader: loader.clone(), replace: false };
    let started = std::time::Instant::now();
    let mut content = 0;
    let info = kits
        .import(&spec, &mut |step| {
            if let Progress::Compressing { total, .. } = step {
                content = total;
            }
        })
        .unwrap();
    println!("kit {} of kernel {}: imported in {:.1?}", info.name, info.kernel, started.elapsed());
    println!("  modules {}, firmware files {}, kit {} bytes", info.modules, info.firmware, info.total_bytes);
    for warning in &info.warnings {
        println!("  warning: {warning}");
    }
    println!("kernel {} bytes", info.kernel_bytes);
    println!("loader program {} bytes, agent program {} bytes", size(&loader), size(&agent));
    println!("loader initramfs {} bytes, unpacked {content}", info.loader_bytes);

    let kit = kits.default_kit().unwrap();
    let loaders = crate::kit::loader_modules(kit.modules());
    let network =
        loaders.modules().iter().filter(|m| crate::kit::part_of(&m.path) == Some(crate::kit::Part::Network));
    println!("  modules in it {}, of these for the network {}", loaders.modules().len(), network.count());
    let bundles = Bundles::open(dir.path(), &agent).unwrap();
    let small = Loaders::open(dir.path()).unwrap();
    let machines: [(&str, PciId, &[&str]); 3] = [
        (
            "virtio",
            PciId { vendor: 0x1af4, device: 0x1000 },
            &[
                "pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00",
                "virtio:d00000001v00001AF4",
                "virtio:d00000002v00001AF4",
            ],
        ),
        (
            "e1000e, ahci, nvme, xhci",
            PciId { vendor: 0x8086, device: 0x10d3 },
            &[
                "pci:v00008086d000010D3sv00008086sd00000000bc02sc00i00",
                "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01",
                "pci:v00001B36d00000010sv00001AF4sd00001100bc01sc08i02",
                "pci:v00001B36d0000000Dsv00001AF4sd00001100bc0Csc03i30",
            ],
        ),
        (
            "mlx5, mpt3sas",
            PciId { vendor: 0x15b3, device: 0x1017 },
            &[
                "pci:v000015B3d00001017sv000015B3sd00000006bc02sc00i00",
                "pci:v00001000d00000097sv00001028sd00001F45bc01sc07i00",
            ],
        ),
    ];
    for (name, nic, aliases) in machines {
        let needs = needs_of(&kit, aliases);
        let (_, bytes) = bundles.get_or_build(&kit, &needs).unwrap();
        println!(
            "bundle for {name}: {bytes} bytes, {} modules ({})",
            needs.modules.len(),
            needs.modules.join(" ")
        );
        assert!(bytes <= BUNDLE_CEILING, "a bundle has grown to {bytes} bytes");
        let (_, loader) = small.small(&kit, &bundles, nic).unwrap().unwrap();
        let there = reaching(kit.modules(), nic).unwrap();
        let drivers: u64 = needs
            .modules
            .iter()
            .filter(|module| !there.contains(module))
            .map(|module| {
                let file = format!("modules/{}", kit.modules().get(module).unwrap().path);
                let hash = kit.mark(&file).unwrap().blake3;
                size(&small.driver(&kit.path(&file), hash).unwrap().unwrap())
            })
            .sum();
        let all = info.kernel_bytes + loader + drivers;
        println!(
            "  loader and agent for its NIC {loader} bytes, further drivers {drivers}; with the kernel {all}"
        );
        let ceiling = if name.contains("mlx5") { BOOT_CEILING_MLX5 } else { BOOT_CEILING };
        assert!(all <= ceiling, "a machine takes {all} bytes before its image");
    }
    assert!(info.loader_bytes <= LOADER_CEILING, "the loader has grown to {} bytes", info.loader_bytes);
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}
