//! A page as a browser shows it.

use std::process::Command;

/// The names of the browser on the common distributions.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// How long scripts may run, in milliseconds of the page's own clock, which does not wait.
const TIME_BUDGET_MS: u32 = 5000;

/// The browser's program, when there is one.
pub fn find() -> Option<&'static str> {
    NAMES.into_iter().find(|name| {
        let version = Command::new(name).arg("--version").output();
        version.is_ok_and(|output| output.status.success())
    })
}

/// The document at `url` as HTML, after its scripts have run.
#[track_caller]
pub fn document(url: &str) -> String {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(find().expect("a browser"))
        .args([
            "--headless",
            // As root, and in a container, it cannot make a sandbox of its own.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--dump-dom",
        ])
        .arg(format!("--virtual-time-budget={TIME_BUDGET_MS}"))
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(url)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}
