//! What tests and benchmarks need of a real Docker engine: containers and compose projects that clean up,
//! clients, a browser, and waiting for conditions.

pub mod browser;
pub mod checkout;
pub mod container;
pub mod http;
pub mod load;
pub mod project;
pub mod reader;
pub mod readme;
pub mod shared;
pub mod tools;
pub mod trial;
pub mod usage;
pub mod wait;
pub mod wrk;
