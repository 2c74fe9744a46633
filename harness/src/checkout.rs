//! Copies of this checkout, for cases that change files.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use tempfile::TempDir;

use crate::tools::{output, root};

/// A copy of this checkout's files, removed when dropped.
pub struct Checkout {
    folder: TempDir,
}

impl Checkout {
    /// Copies the files.
    ///
    /// # Panics
    ///
    /// When one cannot be copied.
    #[track_caller]
    pub fn copy() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let list = "git ls-files -z --cached --others --exclude-standard";
        // git lists deleted files until the deletion is committed; `ls` leaves them out.
        let copy = format!(
            "{list} | xargs -0 ls -d 2>/dev/null | xargs -d '\\n' cp --parents --target-directory '{}'",
            folder.path().display()
        );
        let mut command = Command::new("sh");
        command.args(["-c", &copy]).current_dir(root());
        output(&mut command).unwrap_or_else(|error| panic!("{copy}\n{error}"));
        Self { folder }
    }

    /// A copy as `umask 077` makes it: only its owner reads it.
    #[track_caller]
    pub fn with_strict_umask() -> Self {
        let checkout = Self::copy();
        let mut command = Command::new("chmod");
        command.args(["--recursive", "go-rwx"]).arg(checkout.path());
        output(&mut command).unwrap_or_else(|error| panic!("chmod: {error}"));
        let mode = fs::metadata(checkout.path().join("docker-compose.yml"));
        let mode = mode.expect("it is there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
        checkout
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The path as text, for [`crate::project::Project::new`].
    pub fn folder(&self) -> String {
        self.folder.path().display().to_string()
    }
}
