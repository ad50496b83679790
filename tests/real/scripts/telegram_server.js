// The Telegram server of the package telegram-test-api: node telegram_server.js PACKAGES PORT
const [packages, port] = process.argv.slice(2);
const TelegramServer = require(`${packages}/telegram-test-api`);
new TelegramServer({ port: Number(port), host: "127.0.0.1" }).start();
