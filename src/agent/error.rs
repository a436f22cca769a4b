//! Refusals of the agent, ready for the HTTP API.

/// Why the agent refused: a status code and the text that goes with it, both Consul's where clients match them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentError {
    /// HTTP status.
    pub status: u16,
    /// The text.
    pub text: String,
}

impl AgentError {
    /// The request itself is wrong.
    pub fn bad_request(text: impl Into<String>) -> AgentError {
        AgentError { status: 400, text: text.into() }
    }

    /// What the request names is not there.
    pub fn not_found(text: impl Into<String>) -> AgentError {
        AgentError { status: 404, text: text.into() }
    }

    /// The agent could not do it.
    pub fn failed(text: impl Into<String>) -> AgentError {
        AgentError { status: 500, text: text.into() }
    }

    /// The agent is ending, or its queue is full.
    pub fn unavailable(text: impl Into<String>) -> AgentError {
        AgentError { status: 503, text: text.into() }
    }
}

impl std::fmt::Display for AgentError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for AgentError {}
