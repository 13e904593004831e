// Loaded before a pinned server's own code, to hold it to what it cannot be told by options.
"use strict";

const http = require("node:http");

// supergateway binds every address. It and Figma's server name their port alone or before all else.
const listen = http.Server.prototype.listen;
http.Server.prototype.listen = function (port, ...rest) {
    const listening = rest.findLast((argument) => typeof argument === "function");
    this.once("listening", () => process.send?.({ listening: this.address().port }));
    return listen.call(this, { port: Number(port), host: process.env.HOST }, listening);
};

// A browser tells the origin of each page that asks, and no other client does. Without this any page that is
// open on this machine, or in the browser that we drive, could call our tools.
const emit = http.Server.prototype.emit;
http.Server.prototype.emit = function (event, request, response, ...rest) {
    if (event === "request" && request.headers.origin !== undefined) {
        response.writeHead(403, { "content-type": "text/plain" }).end("No pages\n");
        return true;
    }
    if (event === "upgrade" && request.headers.origin !== undefined) {
        response.end("HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        return true;
    }
    return emit.call(this, event, request, response, ...rest);
};

// `serve` was killed and could not tell us.
process.on("disconnect", () => process.kill(process.pid, "SIGTERM"));
