//! A new file in `migrations` is a change of the program.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
