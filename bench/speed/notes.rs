//! Notes in PostgreSQL: this stack with the API of examples/notes, and the same API in Flask. Both proxies write a
//! line of log for each request.

use std::{
    fs::{self, File, Permissions},
    io::Read,
    os::unix::fs::PermissionsExt,
    time::Duration,
};

use harness::{tools::root, wait, wrk};
use serde_json::Value;

use crate::{
    Result,
    compare::{HEADING, reports},
    contender::{NOTES, NOTES_CLASSIC, Running},
};

const URL: &str = "http://127.0.0.1:80/api/notes";
const LIST: &str = "http://127.0.0.1:80/api/notes?limit=20";
/// The notes in it.
const LISTED: usize = 20;
/// Twice the eight connections that two replicas in Rust have to the database; the classic has six workers.
const CONNECTIONS: u32 = 16;
/// How long a contender may take to answer after its start, in which its database is created.
const START: Duration = Duration::from_secs(60);

/// Writes and reads, as a table in Markdown.
///
/// # Errors
///
/// When the file with the password cannot be written, or a list has too few notes.
pub fn notes() -> Result<String> {
    create_password()?;
    let all = [NOTES, NOTES_CLASSIC].map(|contender| {
        let running = Running::start_with(contender, &[]);
        wait::until(START, || listed(&running));
        running.project.pause();
        running
    });
    let mut table = HEADING.to_owned();
    let write = ["--script", "/notes.lua", URL];
    table += &reports("`POST /api/notes`", &all, CONNECTIONS, &write);
    for running in &all {
        // A shorter list would be faster.
        let count = running.alone(|| wait::until(START, || listed(running)));
        if count != LISTED {
            let name = running.name;
            return Err(format!("{name}: {count} notes in {LIST}, expected {LISTED}").into());
        }
    }
    table += &reports("`GET /api/notes?limit=20`", &all, CONNECTIONS, &[LIST]);
    Ok(table)
}

/// The number of notes in the list.
fn listed(running: &Running) -> Result<usize> {
    let curl = ["curl", "--fail", "--silent", "--max-time", "2", LIST];
    let list: Value = serde_json::from_str(&wrk::beside(&running.proxy, &curl)?)?;
    let notes = list["notes"].as_array().ok_or("expected a list of notes")?;
    Ok(notes.len())
}

/// Creates the file with the database's password if it is missing: 32 random digits and letters.
fn create_password() -> Result<()> {
    let path = root().join("examples/notes/database-password.txt");
    if !path.exists() {
        let mut random = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut random)?;
        fs::write(&path, format!("{:032x}", u128::from_ne_bytes(random)))?;
        // Bind-mounted, so the API's user must be able to read it, whatever the umask is.
        fs::set_permissions(&path, Permissions::from_mode(0o644))?;
    }
    Ok(())
}
