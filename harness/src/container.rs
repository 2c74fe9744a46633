//! Containers and networks that are removed when dropped.

use std::{fs::File, io, os::fd::AsFd, process::Command, time::Duration};

use jiff::{SignedDuration, Timestamp};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{
    tools::{docker, inspect, output, unique},
    wait,
};

/// Options of `docker run` for a container that runs an engine, without `--privileged`, which not every engine
/// supports.
pub const ENGINE_OPTIONS: [&str; 7] = [
    "--cap-add=ALL",
    "--cap-drop=SYS_RESOURCE",
    "--security-opt=seccomp=unconfined",
    "--security-opt=apparmor=unconfined",
    "--security-opt=systempaths=unconfined",
    "--cgroupns=host",
    "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw",
];

/// A container of this run, removed when dropped.
pub struct Container {
    pub name: String,
}

impl Container {
    /// Starts `image` with further options of `docker run`.
    #[track_caller]
    pub fn run(image: &str, options: &[&str]) -> Self {
        Self::run_command(&image.replace(':', "-"), image, options, &[])
    }

    /// Starts `image` with another command, under a name for this purpose.
    #[track_caller]
    pub fn run_command(purpose: &str, image: &str, options: &[&str], command: &[&str]) -> Self {
        let name = unique(purpose);
        let container = Self { name };
        let start = ["run", "--detach", "--name", &container.name];
        docker(&[&start, options, &[image], command].concat());
        container
    }

    pub fn logs(&self) -> String {
        docker(&["logs", &self.name])
    }

    /// Sends a signal and returns the exit code.
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

/// Runs `docker stop`. Returns the exit code and how long the program took to exit, by the engine's clock.
#[track_caller]
pub fn stop(name: &str) -> (String, SignedDuration) {
    let asked = Timestamp::now();
    docker(&["stop", name]);
    let finished: Timestamp = inspect(name, "{{.State.FinishedAt}}").parse().unwrap();
    let code = inspect(name, "{{.State.ExitCode}}");
    (code, finished.duration_since(asked))
}

/// The network namespace of a running container, as a file of this machine.
///
/// # Panics
///
/// Without the right to it: root has it.
#[track_caller]
pub fn network_of(container: &str) -> File {
    let pid = inspect(container, "{{.State.Pid}}");
    let path = format!("/proc/{pid}/ns/net");
    File::open(&path).unwrap_or_else(|error| panic!("{path} of {container}: {error}"))
}

/// Moves this thread, and threads that it starts later, into a network namespace.
///
/// # Errors
///
/// Without the right to it: root has it.
pub fn enter(network: &File) -> io::Result<()> {
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(())
}

/// A network of this run, removed when dropped.
pub struct Network {
    pub name: String,
}

impl Network {
    #[track_caller]
    pub fn new(purpose: &str) -> Self {
        let name = unique(purpose);
        docker(&["network", "create", &name]);
        Self { name }
    }

    /// Creates a network whose addresses can be assigned with `--ip`. Also returns their prefix, such as
    /// `198.18.0.`.
    ///
    /// # Panics
    ///
    /// When the engine refuses, or all subnets are in use.
    #[track_caller]
    pub fn with_prefix(purpose: &str) -> (Self, String) {
        let name = unique(purpose);
        // Of the addresses for tests of devices (RFC 2544), which hardly any network has.
        for third in 0..=255 {
            let prefix = format!("198.18.{third}.");
            let subnet = format!("{prefix}0/24");
            let create = ["network", "create", "--subnet", &subnet, &name];
            match output(Command::new("docker").args(create)) {
                Ok(_) => return (Self { name }, prefix),
                // That of another run of these tests.
                Err(error) if error.contains("overlaps") => {}
                Err(error) => panic!("docker {}: {error}", create.join(" ")),
            }
        }
        panic!("every subnet of 198.18.0.0/16 belongs to another network");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        docker(&["network", "rm", &self.name]);
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        docker(&["rm", "--force", "--volumes", &self.name]);
    }
}
