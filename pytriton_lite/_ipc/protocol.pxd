"""Kinds of records (see wire.pyx for their parts).

::

    ring        kind        call    payload
    calls       PLAN        0       json: what to load
                CALL        new     uint8 flags, int64 backlog of the stream, request
                AGAIN       old     uint8 flags: run a rescheduled request again
                STOP        0       nothing: finalize and end
                BLS_RESPONSE theirs uint8 flags, outcome; for `execute`
    answers     STARTED     0       json: nothing; the stub is there
                LOADED      0       json: what the server wants to know of the model
                FAILED      0       json: the error of the load
                ANSWER      old     uint8 state, uint8 flags, int64 ns of execute, then maybe outcome
                BLS         new     uint8 flags, BLS request that `execute` waits for (see bls_port.pyx)
    to_stub     CANCEL      old     uint8 whether the request goes on to take responses
                CREDIT      old     int64 responses read so far
                REPLY       theirs  to an ASK
                ASK         new     text, json: a question of the server
                BLS_RESPONSE theirs uint8 flags, then maybe outcome
    to_server   RESPONSE    old     uint8 flags, then maybe outcome
                ASK         new     text, json: a question of the stub
                TELL        0       text, json: needs no reply
                REPLY       theirs  to an ASK
                BLS         new     uint8 flags, BLS request of a coroutine, a thread, or a stream
                BLS_CANCEL  theirs  uint8 how
                BLS_CREDIT  theirs  int64 responses read so far
                BLS_WAITS   0       uint8 whether a coroutine is awaited that waits for BLS requests; then
                                    streams that threads wait for: of `execute`, and n of others, each
                                    uint64 number, int64 responses that came so far
    both of     RETURNED    0       nothing: it is sent for the blocks that every record gives back
    those

`call` is new where it names something that begins with the record.

A batch is a row of CALL and AGAIN, each but the last with CALL_MORE; the stub runs them in one
`execute`, and answers each, in order.
"""

cdef enum Kind:
    PLAN = 1
    CALL = 2
    AGAIN = 3
    STOP = 4
    LOADED = 5
    FAILED = 6
    ANSWER = 7
    CANCEL = 8
    CREDIT = 9
    REPLY = 10
    ASK = 11
    RESPONSE = 12
    TELL = 13
    STARTED = 14
    BLS = 15
    BLS_RESPONSE = 16
    BLS_CANCEL = 17
    BLS_CREDIT = 18
    BLS_WAITS = 19
    RETURNED = 20

# Flags of CALL and AGAIN.
cdef enum:
    CALL_STREAMS = 1
    CALL_MORE = 2           # the next record is of the same batch
    CALL_UNCLAIMED = 4      # the request is the stub's as soon as it comes

# States of ANSWER.
cdef enum:
    ANSWER_OUTCOME = 0
    ANSWER_PENDING = 1
    ANSWER_RESCHEDULED = 2
    ANSWER_SKIPPED = 3      # the server has taken the call back

# Flags of ANSWER.
cdef enum:
    ANSWER_FAILED = 1       # execute has
    ANSWER_TOLD = 2         # it has told something aside, such as log records, that came before

# Claims: words in the control page, one per call in flight, by its number. A call that was sent ahead
# is the stub's when it begins with it, and until then the server may take it back. Of a batch that has
# more requests than there are words, the rest is not claimed.
cdef enum:
    CLAIMS = 256
    CLAIMS_BEGIN = 1024
    CLAIM_STATES = 4        # a word is CLAIM_STATES * call + state
    CLAIM_OFFERED = 0
    CLAIM_TAKEN = 1
    CLAIM_RECALLED = 2

# Flags of RESPONSE.
cdef enum:
    RESPONSE_HOLDS = 1      # there is an outcome in it
    RESPONSE_ENDS = 2       # the response sender is closed, and the stub forgets the call

# Flags of BLS; those of BLS_RESPONSE are as of RESPONSE.
cdef enum:
    BLS_DECOUPLED = 1       # any number of responses
    BLS_HAS_SENDER = 2      # the instance has response senders, with which threads may answer

# Flags of BLS_WAITS.
cdef enum:
    WAITS_AWAITS = 1
    WAITS_HAS_SENDER = 2

# How to cancel.
cdef enum:
    CANCEL_HARD = 0         # no response is wanted
    CANCEL_SOFT = 1         # the request goes on to take responses
    CANCEL_READER = 2       # the callee may go on, but nobody reads

# Responses of a stream that may be on their way to a stub or unread there. Whoever reads them says
# so after each half of that.
cdef enum:
    BLS_WINDOW = 32
