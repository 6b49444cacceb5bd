"""The tables of a results file. Knows columns; knows nothing of what fills them.

One table a noun. A *variant* is one spec; a *problem* is what it is timed on; a *member* is a
variant and a problem that a sweep asks for. Peers are timings without a build.
"""

from __future__ import annotations

APPLICATION_ID = 0x47474E31  # "GGN1": tells a results file from other SQLite files
SCHEMA_VERSION = 1

TABLES = """
CREATE TABLE document (       -- texts that are long and much alike, each kept once
  id      INTEGER PRIMARY KEY,
  digest  TEXT NOT NULL UNIQUE,              -- SHA-256 of the text
  base    INTEGER REFERENCES document,       -- whose text is zlib's dictionary for this one
  content BLOB NOT NULL                      -- zlib
);
CREATE TABLE sweep (
  id         INTEGER PRIMARY KEY,
  digest     TEXT NOT NULL UNIQUE,           -- of the definition
  name       TEXT NOT NULL,
  definition TEXT NOT NULL,                  -- YAML, as it was asked for
  axes       TEXT NOT NULL,                  -- JSON: names of the axes, in order
  "when"     TEXT NOT NULL
);
CREATE TABLE problem (        -- what a kernel is timed on
  id     INTEGER PRIMARY KEY,
  mode   TEXT NOT NULL,                      -- grouping: dense, contiguous, ...
  groups INTEGER NOT NULL,
  m INTEGER NOT NULL, n INTEGER NOT NULL, k INTEGER NOT NULL,
  scales TEXT NOT NULL,                      -- 1x128/128x128
  dtypes TEXT NOT NULL,                      -- e4m3/e4m3/bf16
  UNIQUE (mode, groups, m, n, k, scales, dtypes)
);
CREATE TABLE variant (
  id     INTEGER PRIMARY KEY,
  digest TEXT NOT NULL UNIQUE,               -- of the spec
  spec   TEXT NOT NULL                       -- YAML
);
CREATE TABLE member (         -- what a sweep asks for
  sweep   INTEGER NOT NULL REFERENCES sweep,
  number  INTEGER NOT NULL,                  -- place in the sweep, from 0 on
  variant INTEGER NOT NULL REFERENCES variant,
  problem INTEGER REFERENCES problem,        -- NULL: the spec is not valid
  axes    TEXT NOT NULL,                     -- JSON: the value on every axis
  PRIMARY KEY (sweep, number)
) WITHOUT ROWID;
CREATE TABLE build (
  id       INTEGER PRIMARY KEY,
  variant  INTEGER NOT NULL REFERENCES variant,
  status   TEXT NOT NULL CHECK (status IN ('built', 'refused', 'failed')),
  kernel   TEXT,                             -- name
  key      TEXT,                             -- of the artifact in the cache
  plan     INTEGER REFERENCES document,      -- JSON
  source   INTEGER REFERENCES document,      -- CUDA text
  refusal  TEXT,                             -- kind of error: SpecError, CompileError, ...
  reason   TEXT,                             -- the whole message
  seconds  REAL NOT NULL,                    -- that it took, rendering and patching included
  cached   INTEGER NOT NULL,                 -- 1: the compilers did not run
  registers INTEGER, spill_store_bytes INTEGER, spill_load_bytes INTEGER,
  shared_bytes INTEGER,                      -- of a CTA, as launched
  instructions INTEGER, wgmma INTEGER, ffma INTEGER, ffma_yielding INTEGER,
  ffma_reusing INTEGER, longest_ffma_row INTEGER, promotion_runs INTEGER,
  sass      INTEGER REFERENCES document,     -- JSON: all statistics of the code
  toolchain TEXT,                            -- JSON: the compilers with versions and options
  gemmgen  TEXT NOT NULL,                    -- version
  "when"   TEXT NOT NULL
);
CREATE UNIQUE INDEX build_once ON build (variant, IFNULL(key, ''));
CREATE TABLE machine (
  id     INTEGER PRIMARY KEY,
  device TEXT NOT NULL,                      -- name of the GPU
  uuid   TEXT NOT NULL UNIQUE,               -- of the GPU, hashed
  sms    INTEGER NOT NULL,
  memory INTEGER NOT NULL                    -- bytes
);
CREATE TABLE run (            -- timings that share a process and may be compared
  id       TEXT PRIMARY KEY,
  machine  INTEGER NOT NULL REFERENCES machine,
  versions TEXT NOT NULL,                    -- JSON: gemmgen, torch, driver, CUDA, peers
  options  TEXT NOT NULL,                    -- JSON: rounds, seed, data
  "when"   TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE timing (         -- one candidate on one problem in one state
  id        INTEGER PRIMARY KEY,
  run       TEXT REFERENCES run,             -- NULL: the worker was gone before it could say
  problem   INTEGER NOT NULL REFERENCES problem,
  build     INTEGER REFERENCES build,        -- NULL: a peer
  candidate TEXT NOT NULL,                   -- gemmgen, cublaslt_block, stream_read, ...
  label     TEXT NOT NULL DEFAULT '',        -- tells several of one name apart
  status    TEXT NOT NULL CHECK (status IN ('ok', 'wrong', 'hung', 'failed')),
  reason    TEXT,                            -- why there is no time
  l2        TEXT NOT NULL DEFAULT 'dirty',   -- before each launch: dirty, clean, warm
  pace      TEXT NOT NULL DEFAULT 'spaced',  -- spaced | back_to_back (throttled)
  timer     TEXT,                            -- cupti | events
  rounds    INTEGER,
  us REAL, us_spread REAL,                   -- median, and quartile to quartile
  events_us REAL,                            -- the second opinion of CUDA events
  tflops REAL, gbps REAL, error REAL, equal_bits REAL,
  sm_clock_mhz INTEGER, watts INTEGER, celsius INTEGER,
  kernel    TEXT,
  "when"    TEXT NOT NULL,
  extra     TEXT NOT NULL DEFAULT '{}'       -- JSON: what has no column
);
CREATE INDEX timing_of_build ON timing (build, problem);
CREATE INDEX timing_of_problem ON timing (problem, candidate);
"""

# One row a member and timing, newest last; members without a build or a timing have NULLs there.
RESULTS = """
SELECT sweep.name AS sweep, sweep.digest, member.number, member.axes,
  variant.id AS variant, variant.spec,
  problem.mode, problem.groups, problem.m, problem.n, problem.k, problem.scales, problem.dtypes,
  build.id AS build, build.status AS build_status, build.kernel, build.refusal,
  build.reason AS build_reason, build.seconds, build.cached, build.registers,
  build.spill_store_bytes, build.spill_load_bytes, build.shared_bytes, build.instructions,
  build.wgmma, build.ffma, build.ffma_yielding, build.ffma_reusing, build.longest_ffma_row,
  build.promotion_runs, build.toolchain AS compilers, build.plan, build.source, build.sass,
  timing.id AS timing, timing.status, timing.reason, timing.l2, timing.pace, timing.timer,
  timing.rounds, timing.us, timing.us_spread, timing.events_us, timing.tflops, timing.gbps,
  timing.error, timing.equal_bits, timing.sm_clock_mhz, timing.watts, timing.celsius,
  timing.run, timing."when", machine.device, machine.sms, run.versions
FROM member
JOIN sweep ON sweep.id = member.sweep
JOIN variant ON variant.id = member.variant
LEFT JOIN problem ON problem.id = member.problem
LEFT JOIN build ON build.variant = member.variant
  AND build.id = (SELECT MAX(newest.id) FROM build AS newest WHERE newest.variant = variant.id)
LEFT JOIN timing ON timing.build = build.id AND timing.problem = member.problem
LEFT JOIN run ON run.id = timing.run
LEFT JOIN machine ON machine.id = run.machine
ORDER BY member.sweep, member.number, timing.id
"""

# One row a timing of a peer.
PEERS = """
SELECT timing.candidate, timing.label, problem.mode, problem.groups, problem.m, problem.n,
  problem.k, problem.scales, problem.dtypes, timing.status, timing.reason, timing.l2, timing.pace,
  timing.timer, timing.rounds, timing.us, timing.us_spread, timing.events_us, timing.tflops,
  timing.gbps, timing.error, timing.equal_bits, timing.sm_clock_mhz, timing.watts, timing.celsius,
  timing.kernel, timing.run, timing."when", machine.device, machine.sms, run.versions
FROM timing
JOIN problem ON problem.id = timing.problem
LEFT JOIN run ON run.id = timing.run
LEFT JOIN machine ON machine.id = run.machine
WHERE timing.build IS NULL
ORDER BY timing.id
"""
