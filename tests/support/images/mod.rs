//! Container images built on this machine without a registry, and only when something in them
//! changed.

pub mod base;
pub mod build;
pub mod workspace;

pub use base::Base;
pub use build::{Image, Recipe, build};
pub use workspace::{build_image, build_workspace_images, postgres, rocketmq, toolbox};
