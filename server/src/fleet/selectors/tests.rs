//! What selectors choose, and what is no selector.

use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Result<Selectors, BadSelector> {
    Selectors::parse(&[text.to_owned()])
}

/// A machine with labels `role=web`, `rack=` and `odd=a,b`, 15.5 GiB of memory and two NICs.
fn shown(key: &str) -> Shown {
    let label = |text: &str| Shown { label: Some(text.to_owned()), ..Shown::default() };
    let texts = |texts: &[&str]| Shown {
        texts: texts.iter().map(|text| (*text).to_owned()).collect(),
        ..Shown::default()
    };
    match key {
        "role" => label("web"),
        "rack" => label(""),
        "odd" => label("a,b"),
        "model" => label("from before"),
        "site" => texts(&["lab"]),
        "nic" => texts(&["igb", "mlx5_core"]),
        "pci" => texts(&["8086:1521", "10de:1eb8"]),
        "firmware" => texts(&["uefi"]),
        "memory" => Shown { number: Some(31 << 29), ..Shown::default() },
        "cpus" => Shown { number: Some(8), ..Shown::default() },
        "vendor" => Shown { is_partial: true, ..Shown::default() },
        _ => Shown::default(),
    }
}

#[test]
fn terms_mean_what_they_say() {
    let table = [
        ("role=web", true),
        ("role==web", true),
        ("role = web", true),
        ("role=Web", false),
        ("role=w*", false),
        ("role!=web", false),
        ("role!=db", true),
        ("zone!=a", true),
        ("role", true),
        ("!role", false),
        ("zone", false),
        ("!zone", true),
        ("! zone", true),
        ("rack=", true),
        ("rack=\"\"", true),
        ("rack", true),
        ("role in (db,web)", true),
        ("role in ( db , web )", true),
        ("role in(db,web)", true),
        ("role notin (db,web)", false),
        ("role notin (db)", true),
        ("zone notin (a)", true),
        ("odd=\"a,b\"", true),
        ("odd in (\"a,b\")", true),
        ("\"odd\"=\"a,b\"", true),
        ("role=web,memory>=16G", true),
        ("role=db,memory>=16G", false),
        // 16 GiB as sold, of which the kernel shows 15.5.
        ("memory>=16G", true),
        ("memory>=16Gi", false),
        ("memory<64G", true),
        ("memory>17G", false),
        ("memory<=1T", true),
        ("cpus=8", true),
        ("cpus!=8", false),
        ("cpus in (4,8)", true),
        ("cpus>=16", false),
        ("disk>=100G", false),
        ("!disk", true),
        ("nic=MLX5_core", true),
        ("nic=mlx*", true),
        ("nic!=igb", false),
        ("pci=10de:*", true),
        ("firmware=uefi", true),
        // Its vendor is not known, so it is neither of that one nor of another.
        ("vendor=Dell*", false),
        ("vendor!=Dell*", false),
        ("vendor notin (Dell)", false),
        ("!vendor", true),
        ("site=lab", true),
        ("site in (lab,roof)", true),
        // A label from before counts, and the fact of that name does not.
        ("model=from before", true),
        ("model=*", false),
        ("in=x", false),
        ("in", false),
        ("in in (x)", false),
        ("index!=1", true),
    ];
    for (text, wanted) in table {
        let selectors = read(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(selectors.fit(shown), wanted, "{text}");
        let again = selectors.terms().iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        assert_eq!(read(&again).unwrap(), selectors, "{text} is shown as {again}");
    }
    assert!(Selectors::parse(&[]).unwrap().is_empty());
}

#[test]
fn what_is_no_selector_is_said_with_its_place() {
    let table = [
        ("", 1, "key is missing"),
        ("=web", 1, "key is missing"),
        ("role=web,", 10, "key is missing"),
        ("role=web,,a=b", 10, "key is missing"),
        ("!", 1, "key is missing"),
        ("!role=web", 6, "comma or the end"),
        ("role web", 6, "comma or the end"),
        ("role in web", 6, "comma or the end"),
        ("role in (web", 10, "not closed"),
        ("role in ()", 10, "a value is missing"),
        ("role in (a,)", 12, "a value is missing"),
        ("role=\"web", 6, "quotes are not closed"),
        ("role=a(b)", 7, "in quotes"),
        ("role>=5", 5, "is no number"),
        ("ä=1,role<5", 9, "is no number"),
        ("memory>=big", 9, "`big` is no size"),
        ("memory=", 8, "is no size"),
        ("cpus>=1.5", 7, "is no number such as 8"),
        ("cpus in (4,many)", 12, "`many`"),
        ("state=runing", 7, "no state: discovered"),
        ("firmware in (uefi,efi)", 19, "no firmware"),
    ];
    for (text, at, why) in table {
        let error = read(text).unwrap_err();
        assert_eq!(error.at, at, "{error}");
        assert!(error.why.contains(why), "{error}");
    }
    assert!(read(&"x".repeat(5000)).unwrap_err().text.len() < 200);
}

#[test]
fn one_site_is_known_beforehand() {
    let site = |text: &str| read(text).unwrap().site().map(str::to_owned);
    assert_eq!(site("role=web,site=lab").as_deref(), Some("lab"));
    for text in ["site!=lab", "site in (lab,roof)", "site=l*", "site", "role=web"] {
        assert_eq!(site(text), None, "{text}");
    }
}

#[test]
fn a_label_of_an_earlier_version_means_the_same() {
    for text in ["role=web", "rack=r-1", "role="] {
        assert_eq!(of_one_label(text), text);
    }
    for (text, label) in
        [("odd=a,b", "a,b"), ("odd=a (b)", "a (b)"), ("odd=\"x\"", "\"x\""), ("odd=a*", "a*")]
    {
        let selectors = read(&of_one_label(text)).unwrap();
        let has = |_: &str| Shown { label: Some(label.to_owned()), ..Shown::default() };
        assert!(selectors.fit(has), "{text}: {}", of_one_label(text));
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "[a-zé=<>!(),\"\\\\ 0-9G*]{0,40}") {
        if let Ok(selectors) = read(&text) {
            let again = selectors.terms().iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            prop_assert_eq!(read(&again).unwrap(), selectors);
        }
    }
}
