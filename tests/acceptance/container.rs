//! One container, removed when the test ends, also when it fails.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::{
    tools::{docker, inspect, unique},
    wait,
};

/// A container of this test run.
pub struct Container {
    pub name: String,
}

impl Container {
    /// Starts `image` with these further options of `docker run`.
    #[track_caller]
    pub fn run(image: &str, options: &[&str]) -> Self {
        let name = unique(&image.replace(':', "-"));
        let container = Self { name };
        let start = ["run", "--detach", "--name", &container.name];
        docker(&[&start, options, &[image]].concat());
        container
    }

    pub fn logs(&self) -> String {
        docker(&["logs", &self.name])
    }

    /// Stops it as `docker stop` does, and returns its exit code and how long the program took to
    /// end, by the engine's clock.
    #[track_caller]
    pub fn stop(&self) -> (String, SignedDuration) {
        let asked = Timestamp::now();
        docker(&["stop", &self.name]);
        let finished: Timestamp = inspect(&self.name, "{{.State.FinishedAt}}")
            .parse()
            .unwrap();
        let code = inspect(&self.name, "{{.State.ExitCode}}");
        (code, finished.duration_since(asked))
    }

    /// Sends a signal, and returns the exit code that follows.
    #[track_caller]
    pub fn signal(&self, signal: &str) -> String {
        docker(&["kill", "--signal", signal, &self.name]);
        wait::until(Duration::from_secs(10), || {
            match inspect(&self.name, "{{.State.Status}} {{.State.ExitCode}}").split_once(' ') {
                Some(("exited", code)) => Ok(code.to_owned()),
                state => Err(format!("still {state:?}")),
            }
        })
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        docker(&["rm", "--force", "--volumes", &self.name]);
    }
}
