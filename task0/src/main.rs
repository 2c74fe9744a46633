//! Says hello from inside a container.

fn main() {
    println!("Hello, World!");
}
