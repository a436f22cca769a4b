//! TCP and UDP checks.

use std::time::Duration;

use super::connect::{dial, secure, split_host_port, system_text};
use super::plan::{Finding, TlsProbe};
use super::tls::TlsConfigs;
use crate::runtime::net::{Udp, resolve};
use crate::runtime::time;

/// How long a UDP check listens for a refusal after it has sent its datagram, when its timeout is longer.
const UDP_PATIENCE: Duration = Duration::from_millis(500);

/// Connects, and shakes hands when asked to.
pub async fn tcp(address: &str, tls: Option<&TlsProbe>, limit: Duration, configs: &TlsConfigs) -> Finding {
    match connect(address, tls, limit, configs).await {
        Ok(()) => Finding::passing(format!("TCP connect {address}: Success")),
        Err(why) => Finding::critical(why),
    }
}

async fn connect(
    address: &str,
    tls: Option<&TlsProbe>,
    limit: Duration,
    configs: &TlsConfigs,
) -> Result<(), String> {
    let (host, port) = split_host_port(address, None)?;
    let stream = dial(host, port, limit).await?;
    if let Some(tls) = tls {
        secure(stream, host, tls, configs, &[]).await?;
    }
    Ok(())
}

/// Sends a datagram. An answer passes, and so does silence: only a refusal (ICMP port unreachable) fails.
pub async fn udp(address: &str, limit: Duration) -> Finding {
    match send(address, limit).await {
        Ok(()) => Finding::passing(format!("UDP connect {address}: Success")),
        Err(why) => Finding::critical(format!("UDP connect {address}: {why}")),
    }
}

async fn send(address: &str, limit: Duration) -> Result<(), String> {
    let (host, port) = split_host_port(address, None)?;
    let addresses = resolve(host, port).await.map_err(|e| e.to_string())?;
    let target = *addresses.first().ok_or_else(|| format!("lookup {host}: no such host"))?;
    let socket = Udp::connect(target).map_err(|e| system_text(&e))?;
    socket.send(b"TestFoo").await.map_err(|e| system_text(&e))?;
    let mut answer = [0u8; 512];
    match time::timeout(limit.min(UDP_PATIENCE), socket.recv_from(&mut answer)).await {
        Some(Err(e)) => Err(system_text(&e)),
        Some(Ok(_)) | None => Ok(()),
    }
}
