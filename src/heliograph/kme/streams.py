"""Key streams of ETSI GS QKD 004: both sites hand out the same chunk for the same Key_stream_ID and index. No I/O.

The site of ``source`` owns a stream: it takes keys from the supply as master, seals them as chunks, and tells the
other site which key_IDs make up which index. It hands a chunk out only when the other site has acknowledged that, so
no index ever means two keys. The other site fetches the keys by their IDs, as a slave does, when its application asks.
A chunk is handed out once at each site and is durably gone before it is answered.

Everything here is decided on durable records; the calls are made on the store's thread, and what they return says what
the shell (``site.streams``) has to send to the other key manager.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from heliograph.errors import (
    HeliographError,
    InsufficientKeys,
    KeyNotFound,
    KeySupplyError,
    NotPermitted,
)
from heliograph.kme import stream_messages as m
from heliograph.kme.etsi004 import (
    NULL_KSID,
    CloseReply,
    GetKey,
    GetKeyReply,
    OpenConnect,
    OpenReply,
    Status,
)
from heliograph.kme.one_time import KEYS_FOR_EACH_MESSAGE, OneTimeKeys, SealedRequest, take_request
from heliograph.kme.quotas import TooManyRequests
from heliograph.kme.stream_chunks import chunk_of, metadata_of
from heliograph.kme.stream_pace import Pace, Turns
from heliograph.kme.stream_pools import Pool, pool_of
from heliograph.kme.stream_records import Chunk, Missing, Opening, Stream, StreamPolicy, StreamStore
from heliograph.kme.supply import Supply
from heliograph.ports import Clock, RandomSource
from heliograph.types import StoredKey

__all__ = ["Streams"]

# Our choices.
WINDOW = 16  # chunks reserved ahead of the one asked for
AHEAD_MAX = 256  # an index further ahead than this is not waited for
ATTEMPTS_KEPT_S = 30 * 86_400.0  # a key that nobody tried for so long may be tried anew
INDEX_MAX = 2**32 - 1  # 6.2: a u32; an index is never used again, so a stream ends there
KEYS_LEFT = 2 * KEYS_FOR_EACH_MESSAGE  # keys of a pair that stay for messages about it
SAE_URI = "sae:"  # a URI of this form names its SAE without being declared


class Streams:
    """The streams of one site. ``applications``: URI to SAE ID, for URIs that are not ``sae:<id>``."""

    def __init__(
        self,
        store: StreamStore,
        supply: Supply,
        applications: Mapping[str, str],
        policy: StreamPolicy,
        clock: Clock,
        randomness: RandomSource,
    ) -> None:
        self._store, self._supply = store, supply
        self._applications, self._policy = dict(applications), policy
        self._clock, self._randomness = clock, randomness
        self._pace, self._turns = Pace(clock), Turns(clock)

    def declare(self, applications: Mapping[str, str], policy: StreamPolicy) -> None:
        """Take these applications, and promise this, from now on; open streams keep what they were promised."""
        self._applications, self._policy = dict(applications), policy

    # -- calls of an application ---------------------------------------------------------------------------------

    def begin_open(self, caller: str, request: OpenConnect) -> OpenReply | Opening:
        """Decide about OPEN_CONNECT by ``caller``. Nothing is changed yet. Raises NotPermitted."""
        ends = self._ends(caller, request.source, request.destination)
        if ends is None:
            return OpenReply(Status.NO_QKD_CONNECTION)
        remote, owner_here = ends
        known = self._store.find(request.ksid) if request.ksid != NULL_KSID else None
        if known is not None:
            # 6.3: a registered KSID has its QoS already; somebody else's is in use.
            theirs = (known.local_sae, known.source, known.destination) != (caller, request.source, request.destination)
            if theirs or known.closed_here:
                return OpenReply(Status.KSID_IN_USE)
            return self._opening(known, is_new=False, wait_ms=known.qos.timeout_ms)
        agreed = self._policy.negotiate(request.qos, self._key_sizes(caller, remote, owner_here=owner_here))
        if agreed != request.qos:
            return OpenReply(Status.QOS_NOT_MET, agreed, request.ksid)
        if self._is_full(caller):
            return OpenReply(Status.NO_QKD_CONNECTION)
        ksid = request.ksid if request.ksid != NULL_KSID else self._fresh_ksid()
        stream = Stream(
            ksid, caller, remote, request.source, request.destination, agreed, owner_here, self._clock.now()
        )
        # The peer application cannot know a KSID that was chosen just now: there is nothing to wait for.
        return self._opening(stream, is_new=True, wait_ms=0 if request.ksid == NULL_KSID else agreed.timeout_ms)

    def finish_open(self, opening: Opening, reply: m.StreamReply) -> OpenReply:
        """Register what the other key manager agreed to. Status 0 or 1 if so."""
        stream = opening.stream
        if not isinstance(reply, m.Opened):
            return OpenReply(Status.NO_QKD_CONNECTION)
        if reply.status is Status.QOS_NOT_MET:
            return OpenReply(Status.QOS_NOT_MET, reply.qos, NULL_KSID if opening.is_new else stream.ksid)
        if reply.status is not Status.SUCCESSFUL:
            return OpenReply(Status.KSID_IN_USE)
        found = self._store.find(stream.ksid)
        if found is not None and not stream.owner_here:
            stream = found  # both opened at once: what the owner said is registered
        elif found is not None:
            stream = replace(found, qos=reply.qos)
        else:
            stream = replace(stream, qos=reply.qos)
        stream = replace(stream, opened_here=True, opened_there=stream.opened_there or reply.connected)
        self._store.save(stream)
        status = Status.SUCCESSFUL if stream.opened_there else Status.PEER_NOT_CONNECTED
        return OpenReply(status, stream.qos, stream.ksid)

    def give_up_open(self, ksid: bytes) -> m.Opening | None:
        """Note that the application's time is over; the message for the other key manager, if there is one."""
        stream = self._store.find(ksid)
        if stream is None or stream.opened_there:
            return None
        self._store.save(replace(stream, opened_here=False))
        return m.Opening(ksid, stream.source, stream.destination, stream.qos, connected=False)

    def find(self, ksid: bytes) -> Stream | None:
        """Return a registered stream."""
        return self._store.find(ksid)

    def is_connected(self, ksid: bytes) -> bool:
        """Tell whether the peer application has opened the stream."""
        stream = self._store.find(ksid)
        return stream is not None and stream.opened_there

    def get_key(self, caller: str, request: GetKey) -> GetKeyReply | Missing:
        """Answer GET_KEY, or say that the chunk is not there yet. What is answered is gone from the store."""
        stream = self._declared(request.ksid)
        if stream is None or stream.local_sae != caller or not stream.opened_here or stream.closed_here:
            return GetKeyReply(Status.PEER_NOT_YET_CONNECTED)
        if self._is_over(stream):
            return GetKeyReply(Status.INSUFFICIENT_KEY)
        if not stream.opened_there:
            return GetKeyReply(Status.PEER_NOT_YET_CONNECTED)
        chunk = self._store.chunk(stream.ksid, request.index)
        if chunk is None and request.index < stream.next_index:
            return GetKeyReply(Status.INSUFFICIENT_KEY)  # handed out before, or lost
        if not self._pace.may_have(stream):
            return GetKeyReply(Status.INSUFFICIENT_KEY)  # 6.2: faster than the registered Max_bps
        if chunk is None or not chunk.agreed:
            return Missing(stream, request.index)
        metadata = metadata_of(stream, chunk, self._clock.now())
        if len(metadata) > request.metadata_size:
            return GetKeyReply(Status.METADATA_SIZE, metadata_size=len(metadata))
        try:
            key = self._take(stream, chunk)
        except (KeyNotFound, NotPermitted):
            return GetKeyReply(Status.INSUFFICIENT_KEY)
        self._pace.had(stream)
        return GetKeyReply(Status.SUCCESSFUL, chunk.index, key, metadata, len(metadata))

    def close(self, caller: str, ksid: bytes) -> tuple[CloseReply, Stream | None]:
        """Answer CLOSE and erase this side's unused key; the stream, if the other key manager should hear of it."""
        stream = self._store.find(ksid)
        if stream is None or stream.local_sae != caller or not stream.opened_here or stream.closed_here:
            return CloseReply(Status.PEER_NOT_YET_CONNECTED), None
        stream = replace(stream, closed_here=True)
        self._store.save(stream)
        self._forget_pace(ksid)
        self._erase(stream)
        if stream.closed_there:
            self._store.forget(ksid)
        return CloseReply(Status.SUCCESSFUL), stream

    # -- reservations: the owner's side --------------------------------------------------------------------------

    def plan_reservation(self, ksid: bytes, index: int) -> m.Reserve | None:
        """Take keys for the chunks up to ``index`` and a window beyond; the message for the other key manager.

        What was taken before and is not acknowledged goes first. None if there is nothing to reserve now.
        """
        stream = self._declared(ksid)
        if stream is None or not stream.owner_here or not (stream.opened_here and stream.opened_there):
            return None
        if stream.closed_here or stream.closed_there or self._is_over(stream):
            return None
        waiting = [chunk for chunk in self._store.chunks(ksid) if not chunk.agreed]
        if not waiting and stream.next_index <= index + WINDOW // 2 and index < stream.next_index + AHEAD_MAX:
            needed = index + 1 - stream.next_index
            waiting = self._reserve(stream, needed, WINDOW)
            if len(waiting) >= min(needed, m.CHUNKS_MAX):
                self._turns.served(ksid)
            elif needed > 0 and (pool := self._pool(stream)) is not None:
                self._turns.in_vain(stream, pool.key_bytes, (needed - len(waiting)) * pool.keys)
        return m.Reserve(ksid, tuple((c.index, c.key_ids) for c in waiting[: m.CHUNKS_MAX])) if waiting else None

    def reservation_done(self, message: m.Reserve, reply: m.StreamReply) -> bool:
        """Take the other key manager's answer; True if the chunks can be handed out now."""
        if not (isinstance(reply, m.Done) and reply.ok):
            return False
        self._store.agree(message.ksid, [index for index, _ in message.chunks])
        return True

    def _reserve(self, stream: Stream, needed: int, window: int) -> list[Chunk]:
        pool = self._pool(stream)
        if pool is None:
            return []
        each, size, pair = pool.keys, 8 * pool.key_bytes, (stream.local_sae, stream.remote_sae)
        stored = self._supply.stored(*pair, size) - self._turns.kept(stream, pool.key_bytes)
        limit = min(self._supply.at_once(*pair) // each, INDEX_MAX + 1 - stream.next_index)
        # What is asked for now may take what there is; what is put by leaves half of the pool to the pair's other uses.
        ahead = max(needed, min(needed + window, stored // 2 // each))
        number = min(ahead, m.CHUNKS_MAX, limit, (stored - (KEYS_LEFT if pool.is_first else 0)) // each)
        if number < 1:
            return []
        try:
            keys = self._supply.enc_keys(*pair, number * each, size_bits=size)
        except TooManyRequests:  # of a quota: without what would be put by it may do
            number = min(number, needed)
            if number < 1:
                return []
            try:
                keys = self._supply.enc_keys(*pair, number * each, size_bits=size)
            except InsufficientKeys:
                return []
        except InsufficientKeys:
            return []
        chunks = [
            chunk_of(stream.next_index + i, keys[i * each : (i + 1) * each], self._clock.now()) for i in range(number)
        ]
        self._store.add_chunks(stream.ksid, chunks, stream.next_index + number)
        return chunks

    # -- messages of the other key manager -----------------------------------------------------------------------

    def take(self, request: SealedRequest) -> tuple[OneTimeKeys, bytes]:
        """Return a request's keys and body once its tag is right; see ``one_time.take_request``."""
        return take_request(request, self._supply, self._store, self._clock.now())

    def handle(self, sender: str, receiver: str, message: m.Message) -> m.StreamReply:
        """Answer a message that was authenticated with keys of the pair (``sender`` there, ``receiver`` here)."""
        stream = self._store.find(message.ksid)
        if stream is not None and (stream.remote_sae, stream.local_sae) != (sender, receiver):
            return (
                m.Opened(Status.KSID_IN_USE, stream.qos, connected=False)
                if isinstance(message, m.Opening)
                else m.Done(ok=False)
            )
        if isinstance(message, m.Opening):
            return self._handle_opening(sender, receiver, message, stream)
        if stream is None:
            return m.Done(ok=False)
        if isinstance(message, m.Closing):
            stream = replace(stream, closed_there=True)
            self._store.save(stream)
            if stream.closed_here or not stream.opened_here:
                self._erase(stream)
                self._store.forget(stream.ksid)
            return m.Done(ok=True)
        if isinstance(message, m.Reserve):
            return m.Done(ok=self._handle_reserve(stream, message))
        return m.Done(ok=stream.owner_here)

    def _handle_opening(self, sender: str, receiver: str, message: m.Opening, stream: Stream | None) -> m.Opened:
        if stream is None:
            ends = self._ends(receiver, message.source, message.destination)
            if not message.connected or ends is None or ends[0] != sender or self._is_full(receiver):
                return m.Opened(Status.KSID_IN_USE, message.qos, connected=False)
            agreed = self._policy.negotiate(message.qos, self._key_sizes(receiver, sender, owner_here=ends[1]))
            if agreed != message.qos:
                return m.Opened(Status.QOS_NOT_MET, agreed, connected=False)
            now = self._clock.now()
            stream = Stream(message.ksid, receiver, sender, message.source, message.destination, agreed, ends[1], now)
        elif (stream.source, stream.destination) != (message.source, message.destination) or stream.closed_there:
            return m.Opened(Status.KSID_IN_USE, stream.qos, connected=False)
        stream = replace(stream, opened_there=message.connected)
        self._store.save(stream)
        return m.Opened(Status.SUCCESSFUL, stream.qos, connected=stream.opened_here)

    def _handle_reserve(self, stream: Stream, message: m.Reserve) -> bool:
        pool = self._pool(stream)
        if stream.owner_here or stream.closed_here or pool is None:
            return False
        fresh: list[Chunk] = []
        end = stream.next_index
        for index, key_ids in message.chunks:
            if index < stream.next_index:
                known = self._store.chunk(stream.ksid, index)
                if known is not None and known.key_ids != key_ids:
                    return False  # an index never means two keys
            elif index != end or len(key_ids) != pool.keys:
                return False
            else:
                fresh.append(Chunk(index, key_ids, agreed=True, at=self._clock.now()))
                end += 1
        self._store.add_chunks(stream.ksid, fresh, end)
        return True

    # -- time -------------------------------------------------------------------------------------------------------

    def expire(self) -> int:
        """Erase the streams whose TTL is over, with their keys. Returns how many."""
        self._store.forget_attempts(self._clock.now() - ATTEMPTS_KEPT_S)
        over = [stream for stream in self._store.all() if self._is_over(stream)]
        for stream in over:
            self._forget_pace(stream.ksid)
            self._erase(stream)
            self._store.forget(stream.ksid)
        return len(over)

    def _forget_pace(self, ksid: bytes) -> None:
        self._pace.forget(ksid)
        self._turns.served(ksid)

    def _is_full(self, sae: str) -> bool:
        # Counted for each SAE: one that opens streams without end takes no place from another.
        return sum(stream.local_sae == sae for stream in self._store.all()) >= self._policy.streams_max

    def _is_over(self, stream: Stream) -> bool:
        return self._clock.now() >= stream.created_at + stream.qos.ttl_s

    # -- steps ------------------------------------------------------------------------------------------------------

    def _key_sizes(self, local: str, remote: str, *, owner_here: bool) -> tuple[int, ...]:
        """Return how many bytes the pair's keys have, the same ones at both sites."""
        pair = (local, remote) if owner_here else (remote, local)
        return tuple(bits // 8 for bits in self._supply.key_sizes(*pair))

    def _pool(self, stream: Stream) -> Pool | None:
        """Return where the stream's keys come from; None if the pair has no such keys any more."""
        sizes = self._key_sizes(stream.local_sae, stream.remote_sae, owner_here=stream.owner_here)
        return pool_of(stream.qos.key_chunk_size, sizes)

    def _take(self, stream: Stream, chunk: Chunk) -> bytes:
        if stream.owner_here:
            return self._store.take(stream.ksid, chunk.index)

        def accept(found: list[StoredKey]) -> None:
            if sum(len(key.material) for key in found) != stream.qos.key_chunk_size:
                raise KeyNotFound("keys that do not make a chunk")

        try:
            keys = self._supply.dec_keys(stream.local_sae, stream.remote_sae, chunk.key_ids, accept)
        except (KeyNotFound, NotPermitted):
            self._store.take(stream.ksid, chunk.index)  # nothing will ever bring them back
            raise
        self._store.take(stream.ksid, chunk.index)
        return b"".join(key.material for key in keys)

    def _erase(self, stream: Stream) -> None:
        for chunk in self._store.drop(stream.ksid):
            if not stream.owner_here:
                try:
                    self._supply.dec_keys(stream.local_sae, stream.remote_sae, chunk.key_ids)
                except KeySupplyError:
                    continue  # gone already

    def _ends(self, caller: str, source: str, destination: str) -> tuple[str, bool] | None:
        """Return the remote SAE and whether ``source`` is here; None if the URIs are no registered pair's."""
        saes = self._sae(source), self._sae(destination)
        if caller not in saes:
            return None
        owner_here = saes[0] == caller
        remote = saes[1] if owner_here else saes[0]
        if remote is None:
            return None
        try:
            self._supply.authorise(caller, remote)
        except NotPermitted:
            raise
        except HeliographError:
            return None
        return remote, owner_here

    def _declared(self, ksid: bytes) -> Stream | None:
        """Return a registered stream, unless its own end's URI is not its SAE's any more."""
        stream = self._store.find(ksid)
        own = stream and (stream.source if stream.owner_here else stream.destination)
        return stream if stream and own and self._sae(own) == stream.local_sae else None

    def _sae(self, uri: str) -> str | None:
        if uri in self._applications:
            return self._applications[uri]
        return uri.removeprefix(SAE_URI) if uri.startswith(SAE_URI) else None

    def _opening(self, stream: Stream, *, is_new: bool, wait_ms: int) -> Opening:
        message = m.Opening(stream.ksid, stream.source, stream.destination, stream.qos, connected=True)
        return Opening(stream, message, is_new, wait_ms)

    def _fresh_ksid(self) -> bytes:
        drawn = bytearray(self._randomness.draw(16))
        drawn[6], drawn[8] = drawn[6] & 0x0F | 0x40, drawn[8] & 0x3F | 0x80  # UUIDv4
        return bytes(drawn)
