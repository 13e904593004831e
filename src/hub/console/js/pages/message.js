// A message has no page of its own: it is a part of its trace.

import { get } from '../api.js';
import { failure, loading } from '../parts.js';
import { to } from '../router.js';

export default {
  under: 'traces',
  show(main, { parts: [id], signal }) {
    main.append(loading());
    get(`/api/messages/${encodeURIComponent(id)}`, {}, signal)
      .then(({ message }) => location.replace(to('trace', [message.trace_id], { message: id })))
      .catch((error) => error.name !== 'AbortError' && main.replaceChildren(failure(error)));
  },
};
