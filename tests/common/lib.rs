//! What the tests on a real Docker engine have in common.

pub mod container;
pub mod http;
pub mod load;
pub mod project;
pub mod reader;
pub mod readme;
pub mod tools;
pub mod trial;
pub mod wait;
