//! What every implementation of `Blobs` promises, and what the store promises over each, as tests that each one runs:
//! `blobs_suite!` makes them of an expression that gives a new, empty bench.

use super::super::blobs::Blobs;
use super::super::error::ImageError;
use super::super::store::Images;

/// Blobs that can be opened again, and looked into past the store.
pub(crate) trait Bench {
    /// Opens the blobs alone.
    fn blobs(&self) -> Result<Box<dyn Blobs>, ImageError>;
    /// All keys, in order.
    fn keys(&self) -> Vec<String>;
    /// What lies under a key.
    fn read(&self, key: &str) -> Vec<u8>;
    /// Puts something under a key, whoever has the blobs open.
    fn write(&self, key: &str, bytes: &[u8]);
    /// Takes away what lies under a key.
    fn remove(&self, key: &str);
    /// Takes no chunk from now on.
    fn refuse_chunks(&self);

    /// Opens the store.
    fn open(&self) -> Result<Images, ImageError> {
        Images::over(self.blobs()?)
    }
}

/// The tests of this file, and those of the store, over the blobs that `$bench` gives.
macro_rules! blobs_suite {
    ($bench:expr) => {
        $crate::image::tests::suite::blobs_suite!(
            $bench =>
            suite::a_blob_is_replaced_whole_and_listed_once,
            suite::one_has_the_blobs_at_a_time,
            suite::scratch_is_empty_and_no_blob,
            store::boundary_sizes,
            store::equal_chunks_rest_once_and_keep_their_wire_form,
            store::damage_is_found_not_served_and_repaired_by_adding_again,
            store::a_damaged_chunk_is_named_with_its_images_and_mended_from_the_source,
            store::a_name_stays_with_its_content,
            store::bad_names_are_refused_before_anything_is_read,
            store::an_image_is_found_by_name_or_by_the_beginning_of_its_id,
            store::a_crash_leaves_no_half_image_and_takes_no_whole_one,
            store::one_process_has_the_store,
            store::a_store_that_takes_nothing_is_an_error_and_not_an_image,
            store::a_remove_during_an_add_takes_nothing_that_the_add_counts_on,
            store::stopping_ends_an_add_and_leaves_nothing,
        );
    };
    ($bench:expr => $($file:ident::$test:ident),+ $(,)?) => {
        $(
            #[test]
            fn $test() {
                $crate::image::tests::$file::$test(&$bench);
            }
        )+
    };
}
pub(crate) use blobs_suite;

pub(crate) fn a_blob_is_replaced_whole_and_listed_once(bench: &impl Bench) {
    let blobs = bench.blobs().unwrap();
    assert_eq!(blobs.get("chunks/ab/abc").unwrap(), None);
    blobs.put("chunks/ab/abc", b"one").unwrap();
    blobs.put("chunks/ab/abc", b"three").unwrap();
    blobs.put("chunks/cd/cde", b"").unwrap();
    blobs.put("unclean", b"").unwrap();
    blobs.settle().unwrap();
    assert_eq!(blobs.get("chunks/ab/abc").unwrap().unwrap(), b"three");
    assert_eq!(blobs.get("unclean").unwrap().unwrap(), b"");
    assert_eq!(blobs.list("chunks").unwrap(), ["chunks/ab/abc", "chunks/cd/cde"]);
    assert!(blobs.list("nothing").unwrap().is_empty() && blobs.list("chun").unwrap().is_empty());
    assert_eq!((blobs.delete("chunks/ab/abc").unwrap(), blobs.delete("chunks/ab/abc").unwrap()), (5, 0));
    blobs.delete("unclean").unwrap();
    drop(blobs);
    let again = bench.blobs().unwrap();
    assert_eq!(
        again.list("chunks").unwrap(),
        ["chunks/cd/cde"],
        "what was put is there when it is opened again"
    );
}

pub(crate) fn one_has_the_blobs_at_a_time(bench: &impl Bench) {
    let blobs = bench.blobs().unwrap();
    assert!(matches!(bench.blobs(), Err(ImageError::Locked { .. })));
    drop(blobs);
    assert!(bench.blobs().is_ok());
}

pub(crate) fn scratch_is_empty_and_no_blob(bench: &impl Bench) {
    use std::io::{Read as _, Seek as _, Write as _};
    let blobs = bench.blobs().unwrap();
    let (mut one, mut other) = (blobs.scratch().unwrap(), blobs.scratch().unwrap());
    one.write_all(b"half an image").unwrap();
    one.rewind().unwrap();
    let mut text = String::new();
    one.read_to_string(&mut text).unwrap();
    assert_eq!(text, "half an image");
    assert_eq!(other.read(&mut [0]).unwrap(), 0, "each has its own");
    assert!(bench.keys().is_empty());
}
