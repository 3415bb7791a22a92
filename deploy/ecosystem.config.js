// The voice server under PM2, where systemd is not wanted: two instances behind nginx (deploy/nginx.conf).
//
//   cp .env.example .env                        settings and secrets; chmod 600 .env
//   pm2 start deploy/ecosystem.config.js
//   pm2 save && pm2 startup                     started again with the machine
//   deploy/pm2-reload.sh                        new code or settings, one instance after the other: no talk is cut
//
// The server writes its own logs to LOG_DIR; `pm2 logs` shows what goes wrong before it can.

const path = require("node:path");

const folder = path.resolve(__dirname, "..");

// One process each, health and metrics at the same number with a 1 before it. Limits count over all of them, as they
// share STATE_DIR.
const ports = [8081, 8082];

// DRAIN_TIMEOUT and 30 s for the last transcripts. PM2 kills when this is over, so a longer drain needs a longer time.
const drainSeconds = Number(process.env.DRAIN_TIMEOUT || 900);
const killTimeoutMs = (drainSeconds + 30) * 1000;

module.exports = {
  apps: ports.map((port) => ({
    name: `voice-${port}`,
    cwd: folder,
    script: "server.py",
    interpreter: path.join(folder, ".venv", "bin", "python"),
    exec_mode: "fork", // cluster mode is for Node's own sockets
    instances: 1,
    env: {
      NODE_ENV: "production",
      PORT: String(port),
      HEALTH_PORT: `1${port}`,
      WORKERS: "1",
      DRAIN_TIMEOUT: String(drainSeconds),
      LOG_DIR: process.env.LOG_DIR || path.join(folder, "logs"),
      LOG_ROTATION: process.env.LOG_ROTATION || "logrotate", // two processes write to the same files
      STATE_DIR: process.env.STATE_DIR || path.join(folder, "data"),
      PYTHONUNBUFFERED: "1",
    },
    kill_timeout: killTimeoutMs, // SIGINT begins the drain
    treekill: false, // the server stops its own children, after the talks
    autorestart: true,
    exp_backoff_restart_delay: 200, // ms, growing to 15 s
    // A mistake in the settings: starting again does not mend it. `pm2 list` then says "waiting restart" for good, as
    // PM2 7.0.4 sets that before it looks at the code.
    stop_exit_codes: [78],
    merge_logs: true,
    time: true,
  })),
};
