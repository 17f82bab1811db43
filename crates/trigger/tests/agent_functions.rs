//! The list of what an agent executes, which `build.rs` gives to the linker of the released program.

use std::fs;
use std::process::Command;

#[test]
fn the_linker_takes_the_list_of_functions() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name| directory.path().join(name);
    // Named like a function of the list.
    let source = "int ring_core_0_0_0__p256_point_mul(void) { return 7; }\n\
                  int main(void) { return ring_core_0_0_0__p256_point_mul() - 7; }\n";
    fs::write(path("program.c"), source).unwrap();
    let linked = Command::new("cc")
        .arg(path("program.c"))
        .arg("-o")
        .arg(path("program"))
        .arg("-ffunction-sections")
        .arg(concat!("-T", env!("CARGO_MANIFEST_DIR"), "/agent-functions.ld"))
        .output()
        .unwrap();
    assert!(linked.status.success(), "{}", String::from_utf8_lossy(&linked.stderr));
    assert!(Command::new(path("program")).status().unwrap().success());
    let program = fs::read(path("program")).unwrap();
    let has_section = program.windows(12).any(|bytes| bytes == b".text.agent\0");
    assert!(has_section, "a function of the list is in the section of the list");
}
