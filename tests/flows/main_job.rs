//! Two machines get one image, a third another, a fourth is left alone.

use lab::main_job::{self, Audience};

#[test]
#[ignore = "needs root and virtual machines: run ./tests/run"]
fn the_main_job() {
    main_job::run(&Audience { tell: &|text| println!("{text}"), linger: &|_, _| Ok(()) }).unwrap();
}
