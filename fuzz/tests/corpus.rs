//! Replays every input that is worth keeping.

use std::{fs, path::Path};

#[test]
fn every_input_of_the_corpus_passes_its_target() {
    for (name, target) in herald_fuzz::TARGETS {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let entries = fs::read_dir(&directory).expect("every target has a corpus");
        let mut count = 0;
        for entry in entries {
            let path = entry.expect("a corpus can be listed").path();
            println!("{}", path.display());
            target(&fs::read(&path).expect("an input can be read"));
            count += 1;
        }
        assert!(count > 0, "the corpus of {name} is empty");
    }
}
