//! Container images built on this machine without a registry, and only when something in them
//! changed.

pub mod base;
pub mod build;
mod registry;
pub mod released;
pub mod workspace;

pub use base::Base;
pub use build::{Image, Recipe, build};
pub use registry::Registry;
pub use workspace::{build_image, build_workspace_images, postgres, rocketmq, toolbox};
