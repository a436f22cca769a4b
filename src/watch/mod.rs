//! Watches: questions that are followed, and what is done when their answers change.
//!
//! The pure part is shared with the command (`muster watch`): [`plan`] reads parameters and makes the question,
//! [`course`] decides which answers are told, [`news`] says in which shape. The agent's own watches ([`config`], [`run`])
//! are tasks of its control core that ask the agent itself ([`own`]).

pub mod config;
pub mod course;
pub mod gotext;
pub mod news;
pub mod own;
pub mod plan;
pub mod run;
