//! CPU and memory of containers, as the engine measures them.

use bollard::{Docker, query_parameters::StatsOptionsBuilder};
use futures_util::StreamExt;
use tokio::runtime::{self, Runtime};

/// A MiB, in bytes.
pub const MIB: f64 = 1024.0 * 1024.0;

/// CPU and memory of containers.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    /// CPU time since the start, in nanoseconds.
    pub cpu_ns: u64,
    /// Memory now, in bytes, as `docker stats` counts it: without the cache of files that are not
    /// in use.
    pub memory: u64,
}

/// The engine's API: it hides which version of control groups the engine has.
pub struct Engine {
    runtime: Runtime,
    docker: Docker,
}

impl Engine {
    /// Connects to the engine that `docker` uses.
    ///
    /// # Panics
    ///
    /// When there is none.
    #[track_caller]
    pub fn connect() -> Self {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let docker = runtime.block_on(async {
            Docker::connect_with_local_defaults()?
                .negotiate_version()
                .await
        });
        let docker = docker.unwrap_or_else(|error| panic!("no Docker engine: {error}"));
        Self { runtime, docker }
    }

    /// CPU and memory of these containers together.
    ///
    /// # Panics
    ///
    /// When one of them does not run.
    #[track_caller]
    pub fn usage(&self, containers: &[String]) -> Usage {
        let mut sum = Usage::default();
        for container in containers {
            let one = self
                .of(container)
                .unwrap_or_else(|error| panic!("{container}: {error}"));
            sum.cpu_ns += one.cpu_ns;
            sum.memory += one.memory;
        }
        sum
    }

    fn of(&self, container: &str) -> Result<Usage, String> {
        let options = StatsOptionsBuilder::default()
            .stream(false)
            .one_shot(true)
            .build();
        let mut stats = Box::pin(self.docker.stats(container, Some(options)));
        let stats = self.runtime.block_on(stats.next());
        let stats = stats
            .ok_or("the engine gives no figures")?
            .map_err(|error| error.to_string())?;
        let cpu = stats.cpu_stats.and_then(|cpu| cpu.cpu_usage?.total_usage);
        let memory = stats.memory_stats.ok_or("the engine gives no memory")?;
        let unused = memory.stats.as_ref().and_then(|stats| {
            // The first is cgroup v1's name, the second v2's.
            let names = ["total_inactive_file", "inactive_file"];
            names.iter().find_map(|name| stats.get(*name))
        });
        Ok(Usage {
            cpu_ns: cpu.ok_or("the engine gives no CPU time")?,
            memory: memory.usage.ok_or("the engine gives no memory")?
                - unused.copied().unwrap_or_default(),
        })
    }
}
