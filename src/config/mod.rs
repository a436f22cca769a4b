//! Files (JSON, HCL), flags and environment become one validated configuration.
