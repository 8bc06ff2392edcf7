// Finds out which model a request is for, and sends it to the location of that model. Managed by Ansible, role gpuhosts.vllm.nginx_lb.

// nginx.conf maps $model to the location, which is an error message where there is no such model.
function byModel(r) {
    const kind = r.headersIn['Content-Type'] || '';
    if (/^multipart\/form-data/i.test(kind)) {
        send(r, { model: ofForm(r.requestBuffer, kind) });
    } else {
        const fields = fieldsOf(r.requestText);
        send(r, fields, fields.messages || fields.prompt);
    }
}

// A websocket has no body: what the client says inside it comes too late.
function byQuery(r) {
    send(r, { model: r.args.model });
}

// A response that goes on from another one needs the engine that keeps that: all are asked, for nobody knows which it is.
function ofResponse(r) {
    const fields = fieldsOf(r.requestText);
    send(r, fields, fields.input, typeof fields.previous_response_id === "string" ? "/chained" : "");
}

// The name of the host has the first word on the model, where models have such names. $beginning is there with affinity only.
function send(r, fields, said, kind) {
    r.variables.model = r.variables.model_of_host || (typeof fields.model === "string" ? fields.model : "");
    if (r.variables.beginning !== undefined) {
        r.variables.beginning = wordsOf(fields.prompt_cache_key) || beginningOf(fields, said);
    }
    const place = r.variables.model_location;
    r.internalRedirect(place.startsWith("@_") ? place : place + (kind || ""));
}

// What the turns of a conversation have in common, and other conversations have not: the first words of its user, and what the system
// is told, which many conversations share.
function beginningOf(fields, said) {
    const first = Array.isArray(said) ? said.findIndex(message => message && message.role === "user") : -1;
    if (first < 0) {
        return wordsOf(said);
    }
    const before = said.slice(0, first).map(message => message && message.content);
    return [said[first].content, fields.system, fields.instructions].concat(before).map(wordsOf).filter(words => words).join("\n");
}

// The beginning of a text, of the texts in a list of parts, or of a list of tokens; nothing, where there is no text.
function wordsOf(said) {
    return (Array.isArray(said) ? said.slice(0, 256) : [said])
        .map(part => part && part.text !== undefined ? part.text : part)
        .filter(part => typeof part === "string" || typeof part === "number")
        .join(" ")
        .slice(0, 1024);
}

// The engines read a text that begins with a byte order mark (RFC 8259, section 8.1), JSON.parse does not.
function fieldsOf(body) {
    const text = body && body.charCodeAt(0) === 0xFEFF ? body.slice(1) : body;
    try {
        return JSON.parse(text) || {};
    } catch (e) {
        return fieldsOfDeep(text || "");
    }
}

// njs parses 31 levels, and schemas of tools have more. This reads the texts of the first level only, and passes over all else.
function fieldsOfDeep(text) {
    const fields = {};
    let depth = 0;
    let key = "";
    let place = 0;
    for (;;) {
        const start = text.indexOf('"', place);
        const between = text.slice(place, start < 0 ? text.length : start).replace(/[^{}\[\],:]+/g, "");
        for (let i = 0; i < between.length; i++) {
            const mark = between[i];
            depth += mark === "{" || mark === "[" ? 1 : mark === "}" || mark === "]" ? -1 : 0;
        }
        const end = start < 0 ? -1 : endOfText(text, start + 1);
        if (end < 0) {
            return start < 0 && depth === 0 ? fields : {};
        }
        if (depth === 1) {
            const value = JSON.parse(text.slice(start, end + 1));
            if (between === ":") {
                fields[key] = value;
            }
            key = between === ":" ? "" : value;
        }
        place = end + 1;
    }
}

// Where the quote is that ends a text: an even number of backslashes stands before it.
function endOfText(text, start) {
    for (let end = text.indexOf('"', start); end >= 0; end = text.indexOf('"', end + 1)) {
        let first = end;
        while (text[first - 1] === "\\") {
            first--;
        }
        if ((end - first) % 2 === 0) {
            return end;
        }
    }
    return -1;
}

// A recording is sent as a form (RFC 7578), most of which is no text. Only the head of a part names it, not what stands in another.
function ofForm(body, kind) {
    const named = /;\s*boundary=(?:"([^"]+)"|([^\s;]+))/i.exec(kind);
    if (!named || !body) {
        return "";
    }
    const edge = "--" + (named[1] || named[2]);
    for (let part = body.indexOf(edge); part >= 0; part = body.indexOf(edge, part + edge.length)) {
        const head = body.indexOf("\r\n\r\n", part + edge.length);
        const length = head - part - edge.length;
        if (head >= 0 && length < 4096
            && /^content-disposition:[^\r\n]*;\s*name=("?)model\1\s*(?:;|$)/im.test(body.slice(part + edge.length, head).toString())) {
            const end = body.indexOf("\r\n" + edge, head + 4);
            return end < 0 ? "" : body.slice(head + 4, Math.min(end, head + 516)).toString();
        }
    }
    return "";
}

export default { byModel, byQuery, ofResponse };
