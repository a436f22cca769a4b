//! Making a connection to a server: who we are, who it is.

use std::io;
use std::time::Duration;

use futures_lite::io::{AsyncReadExt as _, AsyncWriteExt as _};
use muster_protocol::rpc::{RPC_PREAMBLE, RPC_VERSION, RPC_VERSION_MIN, RpcHello, RpcWelcome};
use muster_protocol::wire::{HELLO_LENGTH_MAX, split_frame};

use super::limits::{CONNECT_LIMIT, KEEPALIVE, UNACKNOWLEDGED_MAX};
use super::{ServerAddress, Settings};
use crate::runtime::net::{Endpoint, Stream};
use crate::runtime::time;

/// A connection on which both have said who they are.
pub(super) struct Greeted {
    pub stream: Stream,
    /// What has come behind the greeting.
    pub rest: Vec<u8>,
}

/// Connects within `patience` for each of the two steps.
///
/// # Errors
/// Why not, as Go's dialler would say it, or in the server's words.
pub(super) async fn connect(
    settings: &Settings,
    server: &ServerAddress,
    patience: Duration,
) -> Result<Greeted, String> {
    let endpoint = Endpoint::Tcp(server.address);
    let limit = CONNECT_LIMIT.min(patience);
    let stream = Stream::connect_from(settings.from, &endpoint, limit).await;
    let mut stream = stream.map_err(|error| dialled(&error))?;
    // Both are precautions against hosts that vanish; a kernel that refuses them leaves its own.
    let _ = stream.socket().set_user_timeout(UNACKNOWLEDGED_MAX);
    let _ = stream.socket().set_keepalive(KEEPALIVE);
    let greeted = time::timeout(patience, greet(settings, &mut stream)).await;
    let (welcome, rest) = greeted.unwrap_or_else(|| Err("i/o timeout".to_owned()))?;
    if !welcome.refusal.is_empty() {
        return Err(format!("server {} refuses: {}", welcome.name, welcome.refusal));
    }
    if welcome.id != server.id.to_string() {
        return Err(format!("server {} ({}) is there instead of {}", welcome.name, welcome.id, server.name));
    }
    Ok(Greeted { stream, rest })
}

/// In the words of Go's dialler.
fn dialled(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        _ => format!("connect: {error}"),
    }
}

async fn greet(settings: &Settings, stream: &mut Stream) -> Result<(RpcWelcome, Vec<u8>), String> {
    let hello = RpcHello {
        version: RPC_VERSION,
        version_min: RPC_VERSION_MIN,
        datacenter: settings.datacenter.clone(),
        name: settings.node.clone(),
        id: settings.id.clone(),
    };
    let mut out = RPC_PREAMBLE.to_vec();
    let mut frame = Vec::new();
    hello.encode(&mut frame);
    out.append(&mut frame);
    stream.write_all(&out).await.map_err(|error| error.to_string())?;
    let mut heard = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        if let Some((frame, length)) = split_frame(&heard, HELLO_LENGTH_MAX).map_err(|why| why.to_string())? {
            let welcome = RpcWelcome::decode(&frame).map_err(|why| why.to_string())?;
            heard.drain(..length);
            return Ok((welcome, heard));
        }
        match stream.read(&mut buffer).await {
            Ok(0) => return Err("EOF".to_owned()),
            Ok(length) => heard.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                return Err("read: connection reset by peer; the server's log may say why".to_owned());
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}
