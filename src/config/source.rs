//! Reads configuration files and folders.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{ConfigError, hcl};

/// Syntax of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON.
    Json,
    /// HCL, first version.
    Hcl,
}

impl Format {
    /// Parses `-config-format`.
    pub fn parse(word: &str) -> Option<Format> {
        match word {
            "json" => Some(Format::Json),
            "hcl" => Some(Format::Hcl),
            _ => None,
        }
    }

    /// The format a file's name asks for.
    fn of(path: &Path) -> Option<Format> {
        path.extension().and_then(|e| e.to_str()).and_then(Format::parse)
    }
}

/// Bytes of a configuration file; larger ones are refused.
pub const FILE_SIZE_MAX: u64 = 64 << 20;

/// The files that `paths` name, in order: a folder stands for its files in lexical order. Files that are neither `.json` nor
/// `.hcl` are left out with a warning unless `forced` names their format.
pub fn files(
    paths: &[PathBuf],
    forced: Option<Format>,
    warnings: &mut Vec<String>,
) -> Result<Vec<(PathBuf, Format)>, ConfigError> {
    let mut out = Vec::new();
    for path in paths {
        let about = fs::metadata(path).map_err(|e| open_failed(path, &e))?;
        let mut candidates = vec![path.clone()];
        if about.is_dir() {
            candidates = Vec::new();
            for entry in fs::read_dir(path).map_err(|e| open_failed(path, &e))? {
                let file = entry.map_err(|e| open_failed(path, &e))?.path();
                // A dangling link is worth an error; a folder inside a folder is not read.
                if !fs::metadata(&file).map_err(|e| open_failed(&file, &e))?.is_dir() {
                    candidates.push(file);
                }
            }
            candidates.sort();
        }
        for file in candidates {
            match forced.or_else(|| Format::of(&file)) {
                Some(format) => out.push((file, format)),
                None if about.is_dir() => {}
                None => warnings.push(format!(
                    "skipping file {}, extension must be .hcl or .json, or config format must be set",
                    file.display()
                )),
            }
        }
    }
    Ok(out)
}

/// Reads and parses one file. An empty file is `null`.
pub fn read(path: &Path, format: Format) -> Result<Value, ConfigError> {
    let size = fs::metadata(path).map_err(|e| open_failed(path, &e))?.len();
    if size > FILE_SIZE_MAX {
        let text = format!("config: {} has {size} bytes, more than {FILE_SIZE_MAX}", path.display());
        return Err(ConfigError(text));
    }
    let bytes = fs::read(path)
        .map_err(|e| ConfigError(format!("config: ReadFile failed on {}: {e}", path.display())))?;
    let text = String::from_utf8(bytes)
        .map_err(|e| ConfigError(format!("failed to parse {}: not UTF-8 text: {e}", path.display())))?;
    parse(&text, format).map_err(|e| ConfigError(format!("failed to parse {}: {e}", path.display())))
}

/// Parses text. Empty text is `null`.
pub fn parse(text: &str, format: Format) -> Result<Value, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    match format {
        Format::Hcl => hcl::parse(text),
        Format::Json => serde_json::from_str(text).map_err(|e| match e.classify() {
            serde_json::error::Category::Eof => "unexpected end of JSON input".to_owned(),
            _ => {
                let place = format!("At {}:{}", e.line(), e.column());
                format!("{place}: {}", super::gojson::error_text(text.as_bytes(), &e))
            }
        }),
    }
}

/// Consul's text for a path that cannot be opened.
fn open_failed(path: &Path, error: &std::io::Error) -> ConfigError {
    let path = path.display();
    let why = match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    };
    ConfigError(format!("config: Open failed on {path}. open {path}: {why}"))
}
