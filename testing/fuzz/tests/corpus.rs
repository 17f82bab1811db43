//! Runs every target on its corpus, and on some hundred mutations of it: the same ones each time.

#![allow(clippy::expect_used, reason = "a test fails where its scenery is missing")]
#![allow(clippy::print_stderr, reason = "a failure shows its seed")]

use std::fs;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use trigger_fuzz::{TARGETS, run};

/// Mutations of each seed. `make fuzz` makes millions.
const MUTATIONS: u32 = 200;
const HERE: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn no_seed_and_no_mutation_of_it_breaks_a_decoder() {
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "corpus/{name} has a seed");
        for (path, seed) in &seeds {
            eprintln!("{name}: {}", path.display());
            target(seed);
            let mut random = Rng::with_seed(seed.len() as u64);
            for _ in 0..MUTATIONS {
                target(&mutated(seed, &seeds, &mut random));
            }
        }
    }
}

#[test]
fn every_target_has_its_program_for_libfuzzer() {
    let manifest = fs::read_to_string(Path::new(HERE).join("libfuzzer/Cargo.toml")).expect("a manifest");
    for (name, _) in TARGETS {
        let program = fs::read_to_string(Path::new(HERE).join(format!("libfuzzer/fuzz_targets/{name}.rs")));
        assert!(program.is_ok_and(|text| text.contains(&format!("\"{name}\""))), "a program for {name}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} in the manifest");
    }
}

#[test]
#[should_panic(expected = "a known target")]
fn an_unknown_target_is_an_error() {
    run("nothing", b"");
}

/// The seeds of a target. Stored values have the golden files of their forms besides.
fn seeds(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut directories = vec![Path::new(HERE).join("corpus").join(name)];
    if name == "values" {
        directories.push(Path::new(HERE).join("../../crates/trigger-core/src/wire/golden"));
    }
    let files = directories.iter().flat_map(|directory| fs::read_dir(directory).expect("a corpus"));
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("a seed").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).expect("a seed"))).collect()
}

/// Changes a few bytes, leaves some out, repeats some, or continues with another seed.
fn mutated(seed: &[u8], seeds: &[(PathBuf, Vec<u8>)], random: &mut Rng) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.usize(..4) {
        let from = random.usize(..=bytes.len());
        let to = (from + random.usize(..=16)).min(bytes.len());
        match random.u8(..5) {
            0 => bytes[from..to].iter_mut().for_each(|byte| *byte = random.u8(..)),
            1 => drop(bytes.drain(from..to)),
            2 => {
                let part = bytes[from..to].to_vec();
                bytes.splice(from..from, part);
            }
            3 => bytes.truncate(from),
            _ => {
                let (_, other) = random.choice(seeds).expect("a seed");
                bytes.splice(from.., other[random.usize(..=other.len())..].iter().copied());
            }
        }
    }
    bytes
}
