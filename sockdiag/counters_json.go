package sockdiag

import "encoding/json"

// MarshalJSON writes the counters that the kernel has, by the names that Has
// takes.
func (c Counters) MarshalJSON() ([]byte, error) {
	values := make(map[string]uint64)
	for i, counter := range counters {
		if c.present&(1<<i) != 0 {
			values[counter.name] = *counter.ptr(&c)
		}
	}
	return json.Marshal(values)
}

// UnmarshalJSON reads what MarshalJSON writes. Names it does not know are left
// out. It also reads an object by the names of the fields, as it was written
// once, which does not tell what the kernel has.
func (c *Counters) UnmarshalJSON(b []byte) error {
	type fields Counters
	var old fields
	if err := json.Unmarshal(b, &old); err != nil {
		return err
	}
	read := Counters(old)
	var values map[string]uint64
	if err := json.Unmarshal(b, &values); err != nil {
		return err
	}
	for i, counter := range counters {
		if n, ok := values[counter.name]; ok {
			*counter.ptr(&read), read.present = n, read.present|1<<i
		}
	}
	*c = read
	return nil
}
