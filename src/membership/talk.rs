//! One talk: a connection, one frame there, one frame back.

use std::net::SocketAddr;
use std::time::Duration;

use futures_lite::io::{AsyncReadExt, AsyncWriteExt};
use muster_protocol::rpc::{Founding, Introduction, Overture};
use muster_protocol::wire::{Decoder, Frame, HELLO_LENGTH_MAX, WireError};

use crate::runtime::net::{Endpoint, Stream};
use crate::runtime::time;

/// Patience with one talk, from the first packet to the answer: three misses in a row are noticed within six seconds.
const TALK_LIMIT: Duration = Duration::from_secs(1);

/// Introduces us; returns how the other one does.
///
/// # Errors
/// It cannot be reached, or is no Muster.
pub async fn introduce(to: SocketAddr, said: &Introduction) -> Result<Introduction, String> {
    let mut out = Vec::new();
    said.encode(false, &mut out);
    exchange(to, &out, Introduction::decode_answer).await
}

/// Tells a server whom it begins a cluster with.
///
/// # Errors
/// It cannot be reached, or refuses.
pub async fn found(to: SocketAddr, founding: &Founding) -> Result<(), String> {
    let mut out = Vec::new();
    founding.encode(&mut out).map_err(|why| why.to_string())?;
    let refusal = exchange(to, &out, Founding::decode_answer).await?;
    if refusal.is_empty() { Ok(()) } else { Err(refusal) }
}

async fn exchange<T>(
    to: SocketAddr,
    out: &[u8],
    decode: impl Fn(&Frame<'_>) -> Result<T, WireError>,
) -> Result<T, String> {
    let talk = async {
        let connected = Stream::connect(&Endpoint::Tcp(to), TALK_LIMIT).await;
        let mut stream = connected.map_err(|error| format!("dial tcp {to}: {error}"))?;
        stream.write_all(out).await.map_err(|error| format!("write to {to}: {error}"))?;
        hear(&mut stream, decode).await.map_err(|why| format!("{to}: {why}"))
    };
    time::timeout(TALK_LIMIT, talk).await.unwrap_or_else(|| Err(format!("{to} does not answer in time")))
}

/// What somebody says who has connected to us.
///
/// # Errors
/// It is no Muster, or hung up.
pub async fn listen(stream: &mut Stream) -> Result<Overture, String> {
    let heard = time::timeout(TALK_LIMIT, hear(stream, Overture::decode)).await;
    heard.unwrap_or_else(|| Err("it says nothing".to_owned()))
}

/// Answers it. Whether that arrives is the other one's concern.
pub async fn answer(stream: &mut Stream, frame: &[u8]) {
    let _ = time::timeout(TALK_LIMIT, async {
        stream.write_all(frame).await?;
        stream.close().await
    })
    .await;
}

async fn hear<T>(
    stream: &mut Stream,
    decode: impl Fn(&Frame<'_>) -> Result<T, WireError>,
) -> Result<T, String> {
    let mut decoder = Decoder::new(HELLO_LENGTH_MAX);
    loop {
        if let Some(frame) = decoder.next_frame().map_err(|why| why.to_string())? {
            return decode(&frame).map_err(|why| why.to_string());
        }
        match stream.read(decoder.room()).await {
            Ok(0) => return Err("it closed the connection".to_owned()),
            Ok(length) => decoder.filled(length),
            Err(error) => return Err(error.to_string()),
        }
    }
}
